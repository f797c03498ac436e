"""Metrics, means and intervals, computed from the raw lines that the runs wrote."""
