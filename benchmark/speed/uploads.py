"""The uploads that rules are timed on: one set for each network and K, drawn with a fixed seed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from fedml_gradcam_ae import Round


def stored_round(network: str, clients: int) -> Round:
    """Return a round with the uploads of one of torchvision's networks for ten classes.

    Args:
        network: torchvision's name.
        clients: the number of uploads.
    """
    torch.manual_seed(0)
    return round_of(get_model(network, num_classes=10), clients)


def round_of(network: nn.Module, clients: int) -> Round:
    """Return a round with random uploads near a network's weights, and 100 test images of 32 x 32 pixels.

    The uploads differ as after some local training. They are drawn one after the other, so that with the same seed the
    first ten of twenty equal the ten of a round of ten.

    Args:
        network: set to eval mode.
        clients: the number of uploads.
    """
    network.eval()
    images, labels = torch.rand(100, 3, 32, 32), torch.randint(0, 10, (100,))
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.mul_(2)  # so that noise makes no upload's variance negative

    def upload() -> dict[str, Tensor]:
        return {
            name: tensor + 0.01 * torch.randn_like(tensor) if tensor.is_floating_point() else tensor.clone()
            for name, tensor in state.items()
        }

    return Round(
        number=1,
        client_ids=list(range(clients)),
        uploads=[upload() for _ in range(clients)],
        samples=[100.0] * clients,
        global_model=state,
        network=copy.deepcopy(network),
        test_data=[(images, labels)],
    )


def matrix(round: Round) -> Tensor:
    """Return the uploads as the matrix that ByzFL expects, (clients, parameters).

    Args:
        round: of uploads.
    """
    return torch.stack([torch.cat([upload[name].flatten() for name in round.parameters]) for upload in round.uploads])
