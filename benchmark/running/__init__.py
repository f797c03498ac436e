"""Running the simulations of a benchmark, in several processes."""
