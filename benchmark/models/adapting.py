"""Adaptation of networks made for ImageNet to other images."""

from __future__ import annotations

from typing import Any

from torch import nn

from fedml_gradcam_ae.contract.settings import SettingsError


def with_channels(network: nn.Module, channels: int) -> nn.Module:
    """Replace the first convolution by one for another number of channels, if necessary.

    Its weights are drawn as in ResNets (He et al. 2015).

    Args:
        network: changed in place; it has a Conv2d.
        channels: of the images.

    Returns:
        The network.
    """
    name, first = next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    if first.in_channels == channels:
        return network
    new = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]  # torch's type is wider than the value
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, new)
    return network


def load_pretrained(network: nn.Module, weights: Any, name: str, channels: int) -> None:
    """Load torchvision's pretrained weights into a network, from the local cache or the internet.

    Args:
        network: with ImageNet's 1,000 classes; changed in place.
        weights: a member of torchvision's WeightsEnum.
        name: the network's name in the configuration.
        channels: of the images.

    Raises:
        SettingsError: if the weights cannot be downloaded, or the images do not have three channels.
    """
    import torch.hub

    if channels != 3:
        raise SettingsError(
            f"model.weights: imagenet is for images with three channels, found {channels}: leave model.weights out."
        )
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise SettingsError(
            f"model.weights: imagenet of {name} could not be downloaded from {weights.url}: {error}. On a machine "
            f"without internet, fetch that file elsewhere and put it into {folder}, or leave model.weights out."
        ) from None
    network.load_state_dict(state)
