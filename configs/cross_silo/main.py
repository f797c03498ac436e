"""A plain FedML cross-silo project, server and clients: ResNet-18 on scikit-learn's handwritten digits.

It knows nothing of fedml_gradcam_ae: python main.py --cf fedml_config.yaml --rank R --role server|client
"""

import fedml
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18


def load_data(args):
    """FedML's list of eight: every n-th of 300 images to each of n clients, the last 297 images for testing."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    images = interpolate(images, size=(32, 32), mode="bilinear").expand(-1, 3, -1, -1)
    labels = torch.tensor(digits.target)
    train = TensorDataset(images[:300], labels[:300])
    test = DataLoader(TensorDataset(images[1500:], labels[1500:]), batch_size=100)
    clients = range(args.client_num_in_total)
    parts = [TensorDataset(*train[client :: len(clients)]) for client in clients]
    loaders = {client: DataLoader(parts[client], batch_size=args.batch_size, shuffle=True) for client in clients}
    return [
        len(train),
        len(test.dataset),
        DataLoader(train, batch_size=args.batch_size),
        test,
        {client: len(parts[client]) for client in clients},
        loaders,
        dict.fromkeys(clients, test),
        10,
    ]


def run(client_trainer=None):
    """The server or a client, as the command line says."""
    args = fedml.init()
    device = fedml.device.get_device(args)
    model = resnet18(num_classes=10)
    trainer = client_trainer(model, args) if client_trainer is not None else None
    fedml.FedMLRunner(args, device, load_data(args), model, client_trainer=trainer).run()


if __name__ == "__main__":
    run()
