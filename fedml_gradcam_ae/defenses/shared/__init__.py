"""Functions that several defenses share."""
