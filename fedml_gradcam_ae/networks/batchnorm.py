"""BatchNorm's running statistics: those that a model stores, and those that it would have on given images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.networks.evaluating import answer, evaluating
from fedml_gradcam_ae.networks.outputs import Bare
from fedml_gradcam_ae.networks.parallel import on_each_upload

FAR = 20.0  # standard deviations: what lies further out counts as that far


@dataclass(frozen=True)
class Statistics:
    """The means that a round's uploads normalize by, in standard deviations of the global model's.

    Attributes:
        stored: (clients, channels), those that the uploads hold.
        measured: (clients, channels), those of the uploads on the same few images.
        layers: (channels,), the number of the BatchNorm layer that each channel belongs to.
    """

    stored: Tensor
    measured: Tensor
    layers: Tensor

    def only(self, clients: Tensor) -> Statistics:
        """Those of some clients, (clients,), bool."""
        return Statistics(self.stored[clients], self.measured[clients], self.layers)


def normalizing_layers(network: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers that keep running statistics, by dotted name."""
    layers = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    return {name: layer for name, layer in layers.items() if layer.running_mean is not None}


def estimated_statistics(
    network: nn.Module, model: Mapping[str, Tensor], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """The running means and variances that a model's weights have on these images, mean over batches.

    What the model stores is not looked at: every layer normalizes each batch by the batch's own statistics.

    Args:
        network: the architecture, on the device to compute on; its weights and statistics neither matter nor change.
        model: a state dict that fits it, on any device.
        batches: (images, channels, height, width) each, at least one, of at least two images.

    Returns:
        `LAYER.running_mean` and `LAYER.running_var`, (channels,) each, by their names in the state dict.
    """
    network = Bare(network)
    layers = normalizing_layers(network)
    device = next(network.parameters()).device
    tensors = {name: tensor.detach().to(device) for name, tensor in model.items()}
    statistics = [f"{name}.{kind}" for name in layers for kind in ("running_mean", "running_var")]
    counts = [f"{name}.num_batches_tracked" for name in layers]
    tensors |= {name: torch.zeros_like(tensors[name]) for name in (*statistics, *counts)}
    with evaluating(network), _training(layers.values()), torch.no_grad():
        for number, images in enumerate(batches, 1):
            for layer in layers.values():
                layer.momentum = 1 / number  # None means the same, but has every layer read its count from the GPU
            answer(network, tensors, images)  # fills in the statistics
    return {name: tensors[name] for name in statistics}


def moved_statistics(
    network: nn.Module,
    start: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    images: Tensor,
) -> dict[str, Tensor]:
    """The running means and variances that a training would have left that had ended with other weights.

    What the weights change in the statistics of some images is added to those that the training left, in part: for each
    batch BatchNorm saw the weights of that moment, taken here to be on a straight way, and it followed by its momentum.

    Args:
        network: the architecture, on the device to compute on.
        start: the state dict that the training began with.
        trained: the state dict that it ended with.
        other: a state dict with the other weights.
        images: (images, channels, height, width), of the trained client, at least two.

    Returns:
        `LAYER.running_mean` and `LAYER.running_var`, (channels,) each, by their names in the state dict.
    """
    before, after = (estimated_statistics(network, model, [images]) for model in (trained, other))
    moved = {}
    for layer, module in normalizing_layers(network).items():
        counted = f"{layer}.num_batches_tracked"
        share = _share_of_the_end(int(start[counted]), int(trained[counted]), module.momentum)
        for name in (f"{layer}.running_mean", f"{layer}.running_var"):
            moved[name] = trained[name].to(after[name]) + share * (after[name] - before[name])
        moved[f"{layer}.running_var"].clamp_(min=0)
    return moved


def _share_of_the_end(before: int, after: int, momentum: float | None) -> float:
    """How much of a change that grows evenly from batch to batch is in running statistics after the last one."""
    batches = after - before
    if momentum is None:  # the mean over all batches
        return sum(batch / batches for batch in range(batches)) / max(after, 1)
    return sum(momentum * (1 - momentum) ** (batches - 1 - batch) * batch / batches for batch in range(batches))


def statistics_of(
    network: nn.Module, global_model: Mapping[str, Tensor], uploads: Sequence[Upload], images: Tensor
) -> Statistics | None:
    """What `suspicion.tracking` compares; None where the network has no BatchNorm, or where there is one image.

    Args:
        network: the architecture.
        global_model: the state dict that the clients started from.
        uploads: state dicts that fit the network.
        images: (images, channels, height, width), on the network's device.
    """
    layers = normalizing_layers(network)
    if not layers or len(images) < 2:
        return None
    means = [f"{name}.running_mean" for name in layers]
    device = images.device
    scale = torch.cat(
        [(global_model[f"{name}.running_var"].to(device) + layer.eps).sqrt() for name, layer in layers.items()]
    )

    def row(statistics: Mapping[str, Tensor]) -> Tensor:
        return (torch.cat([statistics[name].to(device) for name in means]) / scale).nan_to_num(FAR).clamp(-FAR, FAR)

    found = on_each_upload(network, uploads, partial(estimated_statistics, batches=[images]))
    stored, measured = (torch.stack([row(values) for values in models]) for models in (uploads, found))
    sizes = torch.tensor([global_model[name].numel() for name in means], device=device)
    numbers = torch.arange(len(means), device=device).repeat_interleave(sizes)
    return Statistics(stored, measured, numbers)


@contextmanager
def _training(layers: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let BatchNorm normalize by each batch's statistics, and give it back its momentum."""
    before = [(layer, layer.training, layer.momentum) for layer in layers]
    try:
        for layer, _, _ in before:
            layer.training = True
        yield
    finally:
        for layer, training, momentum in before:
            layer.training, layer.momentum = training, momentum
