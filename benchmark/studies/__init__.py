"""Studies of the GradCAM-AE defense beyond a benchmark's report."""
