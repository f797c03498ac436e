"""Records of each round: events, log lines, files and pictures."""
