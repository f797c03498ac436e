"""Functions of tensors and numbers that do not depend on federated learning."""
