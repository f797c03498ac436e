"""Execution of a benchmark's simulations in several processes."""
