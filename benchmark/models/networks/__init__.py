"""The networks, one file per family; copy the shortest one to add another."""
