"""Training of a model on the server, as FedML's clients train it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.networks.images import preserved_random_state


def train_locally(
    network: nn.Module,
    start: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor,
    epochs: int,
    learning_rate: float,
    optimizer: str,
    weight_decay: float,
    batch_size: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the state dict after some epochs of cross-entropy, as FedML's classification trainer makes it.
    Neither `network` nor the global random state changes.

    Args:
        network: the architecture, on the device to compute on.
        start: the state dict to start from.
        images: (images, channels, height, width).
        labels: (images,), classes.
        epochs: passes over the images.
        learning_rate: the optimizer's learning rate.
        optimizer: `sgd`, without momentum and weight decay; any other value is Adam with AMSGrad, as in FedML.
        weight_decay: Adam's L2 penalty.
        batch_size: the largest batch. Batches differ by at most one image in size, so that no batch of a single image
            remains, as a DataLoader may leave one: BatchNorm cannot be trained on it.
        generator: shuffles the images and seeds the random parts of the network (dropout).
    """
    model = copy.deepcopy(network)
    model.load_state_dict(start)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step: torch.optim.Optimizer
    if optimizer == "sgd":
        step = torch.optim.SGD(trained, lr=learning_rate)
    else:
        step = torch.optim.Adam(trained, lr=learning_rate, weight_decay=weight_decay, amsgrad=True)
    images, labels = images.to(next(model.parameters())), labels.to(next(model.parameters()).device)
    with preserved_random_state(), torch.enable_grad():
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        for _ in range(epochs):
            order = torch.randperm(len(images), generator=generator)
            for batch in torch.tensor_split(order, math.ceil(len(order) / batch_size)):
                step.zero_grad()
                nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
                step.step()
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
