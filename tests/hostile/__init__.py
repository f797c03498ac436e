"""What a hostile client may send, each with what must happen to it."""
