"""The data sets, one file each; copy the shortest one to add another."""
