"""What happened in a round, for those who listen: logs, files, pictures."""
