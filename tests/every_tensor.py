"""Small trained networks, honest uploads from them, and every way to move one tensor of an upload."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from fedml_gradcam_ae import Round
from fedml_gradcam_ae.networks.training import train_locally
from tiny import digits, state_of

CLIENTS, IMAGES, WARM = 20, 30, 200  # the images of each client, and those that the global model has learned from


def plain() -> nn.Module:
    """No normalization."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10)
    )


def normalized() -> nn.Module:
    """With BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


class Residual(nn.Module):
    """One block around which its input goes as well, with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(4), nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        scores: Tensor = self.fc(self.pool(torch.relu(maps + self.block(maps))).flatten(1))
        return scores


NETWORKS: dict[str, Callable[[], nn.Module]] = {"plain": plain, "normalized": normalized, "residual": Residual}


@dataclass
class Trained:
    """Twenty honest uploads, and the images that nothing was trained on."""

    network: nn.Module
    start: Mapping[str, Tensor]
    uploads: list[Mapping[str, Tensor]]
    images: Tensor
    labels: Tensor

    def round(self, clients: int) -> Round:
        """The first so many clients."""
        return Round(
            number=1,
            client_ids=list(range(clients)),
            uploads=self.uploads[:clients],
            samples=[float(IMAGES)] * clients,
            global_model=self.start,
            network=copy.deepcopy(self.network),
            test_data=DataLoader(TensorDataset(self.images[:200], self.labels[:200]), batch_size=100),
        )

    def accuracy(self, model: Mapping[str, Tensor]) -> float:
        """On the images that nothing was trained on."""
        with torch.no_grad():
            answers = functional_call(self.network, dict(model), (self.images,)).argmax(dim=1)
        return float((answers == self.labels).double().mean())


def trained(name: str, seed: int = 0) -> Trained:
    """A network that has learned from some images, and what it becomes on each client's own."""
    torch.manual_seed(seed)
    network = NETWORKS[name]().eval()
    images, labels = digits()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    images, labels = images[order], labels[order]

    def train(start: Mapping[str, Tensor], first: int, count: int, epochs: int) -> dict[str, Tensor]:
        part = slice(first, first + count)
        return train_locally(
            network, start, images[part], labels[part], epochs, 0.1, "sgd", 0.0, batch_size=10, generator=generator
        )

    start = train(state_of(network), 0, WARM, 15)
    uploads = [train(start, WARM + IMAGES * client, IMAGES, 1) for client in range(CLIENTS)]
    left = slice(WARM + IMAGES * CLIENTS, None)
    return Trained(network, start, list(uploads), images[left], labels[left])


def _one_number(step: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        moved = tensor.clone()
        moved.view(-1)[zlib.crc32(str(tuple(tensor.shape)).encode()) % tensor.numel()] += step
        return moved

    return change


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "one number + 10": _one_number(10.0),
    "one number + 100": _one_number(100.0),
    "one number + 1e30": _one_number(1e30),
    "one number - 100": _one_number(-100.0),
    "times 10": lambda tensor: 10 * tensor,
    "times 1e30": lambda tensor: 1e30 * tensor,
    "zero": torch.zeros_like,
    "other sign": torch.neg,
}


BACKWARD = "its own change, backward, times 10"  # what training does to the tensor, undone


def changes(model: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Every tensor with every change that leaves the upload usable: a running variance is never negative."""
    for name, tensor in model.items():
        if tensor.is_floating_point():
            for change in CHANGES:
                if not (name.endswith("running_var") and change in ("other sign", "one number - 100")):
                    yield name, change


def attacked(round: Round, attackers: list[int], name: str, change: str) -> Round:
    """The round in which some clients moved one tensor of their honest uploads."""
    uploads = list(round.uploads)
    for attacker in attackers:
        honest, start = uploads[attacker][name], round.global_model[name]
        moved = start - 10 * (honest - start) if change == BACKWARD else CHANGES[change](honest)
        uploads[attacker] = {**uploads[attacker], name: moved}
    return replace(round, uploads=uploads)
