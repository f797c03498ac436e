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
from fedml_gradcam_ae.networks.evaluating import answer, constants, evaluating
from fedml_gradcam_ae.networks.outputs import Bare
from fedml_gradcam_ae.networks.parallel import on_each_upload

FAR = 20.0  # standard deviations; means of a larger absolute value are clamped to it


@dataclass(frozen=True)
class Statistics:
    """The means by which a round's uploads normalize, in units of the global model's standard deviations.

    Attributes:
        stored: (clients, channels), the running means that the uploads hold.
        measured: (clients, channels), the means that the uploads have on the same few images.
        layers: (channels,), the number of the BatchNorm layer that each channel belongs to.
    """

    stored: Tensor
    measured: Tensor
    layers: Tensor

    def only(self, clients: Tensor) -> Statistics:
        """Return the statistics of some clients.

        Args:
            clients: (clients,), bool.
        """
        return Statistics(self.stored[clients], self.measured[clients], self.layers)


def normalizing_layers(network: nn.Module) -> dict[str, _BatchNorm]:
    """Return the BatchNorm layers that keep running statistics, by dotted name.

    Args:
        network: the architecture.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False))
        >>> list(normalizing_layers(network))
        ['1']
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    return {name: layer for name, layer in layers.items() if layer.running_mean is not None}


def _federated(network: nn.Module, model: Mapping[str, Tensor]) -> dict[str, _BatchNorm]:
    """Return the layers whose running statistics a model holds: FedBN, for one, keeps them at the clients."""
    layers = normalizing_layers(network)
    return {
        name: layer
        for name, layer in layers.items()
        if f"{name}.running_mean" in model and f"{name}.running_var" in model
    }


def estimated_statistics(
    network: nn.Module, model: Mapping[str, Tensor], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Return the running means and variances that a model's weights have on given images, averaged over batches.

    The statistics that the model stores are not used: every layer normalizes each batch by the batch's own statistics.

    Args:
        network: the architecture, on the device to compute on; its weights and statistics are neither used nor changed.
        model: a state dict that fits the network, on any device. The network's own tensors take the place of those
            that it lacks.
        batches: (images, channels, height, width) each, at least one batch, of at least two images.

    Returns:
        `LAYER.running_mean` and `LAYER.running_var`, (channels,) each, by their names in the state dict; nothing for
        layers whose statistics the model lacks.

    Example:
        >>> images = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
        >>> network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
        >>> model = network.state_dict() | {"0.weight": torch.ones(1, 1, 1, 1), "0.bias": torch.zeros(1)}
        >>> estimated_statistics(network, model, [images])
        {'1.running_mean': tensor([2.]), '1.running_var': tensor([2.])}
    """
    network = Bare(network)
    layers = _federated(network, model)
    device = next(network.parameters()).device
    tensors = constants(model, device)
    statistics = [f"{name}.{kind}" for name in layers for kind in ("running_mean", "running_var")]
    counts = [f"{name}.num_batches_tracked" for name in layers]
    tensors |= {name: torch.zeros_like(tensors[name]) for name in (*statistics, *counts) if name in tensors}
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
    """Estimate the running statistics that training would have left had it ended at `other`.

    The estimate is the statistics that training left, plus a share of the difference that the weights make in the
    statistics of some images. The share is below 1 because BatchNorm saw, for each batch, the weights of that moment.
    They are taken to move on a straight line, and the statistics to follow them by BatchNorm's momentum.

    Args:
        network: the architecture, on the device to compute on.
        start: the state dict that training began with.
        trained: the state dict that training ended with.
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
    """Return the weight of the final value in a moving average over a linear ramp.

    Args:
        before: the number of batches before training.
        after: the number of batches after training.
        momentum: BatchNorm's momentum; None: the mean over all batches.
    """
    batches = after - before
    if momentum is None:  # the mean over all batches
        return sum(batch / batches for batch in range(batches)) / max(after, 1)
    return sum(momentum * (1 - momentum) ** (batches - 1 - batch) * batch / batches for batch in range(batches))


def statistics_of(
    network: nn.Module, global_model: Mapping[str, Tensor], uploads: Sequence[Upload], images: Tensor
) -> Statistics | None:
    """Return the statistics of a round's uploads, which `suspicion.tracking` compares.

    Args:
        network: the architecture.
        global_model: the state dict that the clients started from.
        uploads: state dicts that fit the network.
        images: (images, channels, height, width), on the network's device.

    Returns:
        The statistics; None if the models hold none (no BatchNorm layer, or its layers stay at the clients), or if
        there are fewer than two images.
    """
    layers = _federated(network, global_model)
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
    """Let BatchNorm layers normalize by each batch's statistics, and restore their mode and momentum afterward."""
    before = [(layer, layer.training, layer.momentum) for layer in layers]
    try:
        for layer, _, _ in before:
            layer.training = True
        yield
    finally:
        for layer, training, momentum in before:
            layer.training, layer.momentum = training, momentum
