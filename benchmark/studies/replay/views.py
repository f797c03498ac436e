"""Views of an upload: its heat maps at several layers on probe images of one size, and its logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.heatmaps.class_maps import maps_of_classes
from fedml_gradcam_ae.heatmaps.forward import run_to_layers, weigh


@dataclass(frozen=True)
class View:
    """The size of the probe images and the layers at which the heat maps of an upload are computed.

    Attributes:
        size: height and width in pixels that the probe images are resized to.
        layers: dotted names, in the order of the forward pass; `auto` is the end of the last convolutional stage.
    """

    size: int
    layers: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> View:
        """Parse a view.

        Args:
            text: size and layers, such as `64:layer3,layer4`.

        Raises:
            ValueError: if the text has another form.

        Example:
            >>> View.parse("64:layer3,layer4")
            View(size=64, layers=('layer3', 'layer4'))
        """
        size, colon, layers = text.partition(":")
        if not size.isdecimal() or not colon or not all(layers.split(",")):
            raise ValueError(f"a view is written SIZE:LAYER,LAYER such as 64:layer3,layer4, found {text!r}")
        return cls(int(size), tuple(layers.split(",")))


@dataclass(frozen=True)
class Seen:
    """The heat maps and logits of one upload in one view.

    Attributes:
        logits: (images, classes).
        maps: by layer, (images, height, width): signed maps of the label's logit, eq. (12) without its ReLU.
        classes: (images, classes, height, width): the same for every class, at the last layer.
    """

    logits: Tensor
    maps: dict[str, Tensor]
    classes: Tensor


def look(network: nn.Module, upload: Upload, images: Tensor, labels: Tensor, view: View) -> Seen:
    """Compute the heat maps and logits of an upload with a single forward pass.

    Args:
        network: the architecture, in eval mode.
        upload: a state dict that fits it.
        images: (images, channels, height, width), of the view's size.
        labels: (images,), int64.
        view: its layers have 4-D output and run once per forward pass.
    """
    constants = {name: tensor.detach() for name, tensor in upload.items()}
    logits, activations = run_to_layers(network, constants, images, view.layers)
    chosen = logits.gather(1, labels[:, None]).sum()
    slopes = torch.autograd.grad(chosen, activations, retain_graph=True)
    maps = [weigh(a.detach(), slope) for a, slope in zip(activations, slopes, strict=True)]
    return Seen(logits.detach(), dict(zip(view.layers, maps, strict=True)), maps_of_classes(logits, activations[-1]))
