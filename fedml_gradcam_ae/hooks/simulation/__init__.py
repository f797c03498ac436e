"""Patches of FedML's simulators: single process and MPI."""
