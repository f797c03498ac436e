"""The network of the hostile rounds: small, with a frozen layer, BatchNorm and two names for one layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

State = OrderedDict[str, Tensor]
CLAIM = 20.0  # samples that each client claims
OFFSETS = (0.010, 0.012, 0.0135, 0.019, 0.016)  # of the honest clients' uploads: no two are equally far apart
MINE = 0.0155  # of the upload that the hostile client would send if it were honest


class Net(nn.Module):
    """For 8 x 8 digits; `stem` is frozen, `twin` is another name for `head`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 1).requires_grad_(False)
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(16, 10)
        self.twin = self.head

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.conv(self.stem(images))))
        return self.head(nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))


def network() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


def state() -> State:
    """The global model at the start."""
    return OrderedDict((name, tensor.detach().clone()) for name, tensor in network().state_dict().items())


def offsets(number: int) -> list[float]:
    """The honest clients' in a round: other ones than in the rounds before and after."""
    return [offset + 1e-4 * (number % 7) for offset in OFFSETS]


def honest(offset: float) -> State:
    """An upload that no screen finds fault with: what training changes has moved by about the offset, its own way."""
    generator = torch.Generator().manual_seed(round(offset * 1e6))
    model = state()
    for name, tensor in model.items():
        if not name.startswith(("stem", "twin")) and tensor.is_floating_point():
            own = torch.randn(tensor.shape, generator=generator)
            tensor += offset if name.startswith("norm") else offset * (0.3 + own)
    model["twin.weight"], model["twin.bias"] = model["head.weight"].clone(), model["head.bias"].clone()
    return model


def average(uploads: Sequence[tuple[float, Mapping[str, Tensor]]]) -> State:
    """FedML's average of pairs of a weight and a model."""
    total = sum(weight for weight, _ in uploads)
    first = uploads[0][1]
    return OrderedDict(
        (name, sum(weight / total * upload[name].double() for weight, upload in uploads).to(tensor.dtype))
        for name, tensor in first.items()
    )
