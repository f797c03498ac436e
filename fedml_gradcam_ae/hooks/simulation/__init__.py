"""FedML's simulators: single process and MPI."""
