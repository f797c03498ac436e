"""The defenses, one per file, each registered by its decorator."""
