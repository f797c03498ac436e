"""One attack per file, each registered by its decorator."""
