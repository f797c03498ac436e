"""Networks made for ImageNet on other images."""

from __future__ import annotations

from typing import Any

from torch import nn

from fedml_gradcam_ae.contract.settings import SettingsError


def with_channels(network: nn.Module, channels: int) -> nn.Module:
    """The network with a first convolution that takes so many channels, drawn as in ResNets (He et al. 2015)."""
    name, first = next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    if first.in_channels == channels:
        return network
    new = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]  # torch declares it wider than it is
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, new)
    return network


def load_pretrained(network: nn.Module, weights: Any, name: str, channels: int) -> None:
    """Fill a network with weights that torchvision offers, from its cache or the internet.

    Args:
        network: with ImageNet's 1,000 classes.
        weights: a member of torchvision's WeightsEnum.
        name: the network's name in the configuration.
        channels: of the images.

    Raises:
        SettingsError: if the weights cannot be fetched, or the images have no three channels.
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
