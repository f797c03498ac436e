"""A plain FedML cross-silo project with a tiny network: server or client, as the command line says."""

import fedml
import torch

from tiny import fedml_dataset, tiny_cnn

if __name__ == "__main__":
    torch.set_num_threads(1)
    args = fedml.init()
    device = fedml.device.get_device(args)
    dataset = fedml_dataset(args.client_num_in_total)
    fedml.FedMLRunner(args, device, dataset, tiny_cnn()).run()
