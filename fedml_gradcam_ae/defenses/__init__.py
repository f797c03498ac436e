"""One defense per file, each registered by its decorator."""
