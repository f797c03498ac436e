"""Figures from the raw lines of runs."""
