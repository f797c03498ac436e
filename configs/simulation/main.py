"""A plain FedML simulation on scikit-learn's handwritten digits; it knows nothing of fedml_gradcam_ae."""

import fedml
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def load_data(args):
    """FedML's list of eight: every n-th image to each of n clients, the last 297 images for testing."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    train = TensorDataset(images[:1500], labels[:1500])
    test = DataLoader(TensorDataset(images[1500:], labels[1500:]), batch_size=100)
    clients = range(args.client_num_in_total)
    parts = [TensorDataset(*train[client :: len(clients)]) for client in clients]
    return [
        len(train),
        len(test.dataset),
        DataLoader(train, batch_size=args.batch_size),
        test,
        {client: len(parts[client]) for client in clients},
        {client: DataLoader(parts[client], batch_size=args.batch_size, shuffle=True) for client in clients},
        {client: test if client == 0 else None for client in clients},
        10,
    ]


if __name__ == "__main__":
    args = fedml.init()
    device = fedml.device.get_device(args)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    fedml.FedMLRunner(args, device, load_data(args), model).run()
