"""The attacks, one per file, each registered by its decorator."""
