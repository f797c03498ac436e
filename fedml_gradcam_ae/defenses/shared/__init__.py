"""What several defenses have in common."""
