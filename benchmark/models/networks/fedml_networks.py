"""FedML's own ResNets for small images (He et al. 2016, section 4.2): the last maps are 8 x 8 on 32 x 32 pixels.

FedML's "resnet56" has three-layer blocks, 6 per stage, where the paper has two-layer blocks, 9 per stage.
"""

from __future__ import annotations

from torch import nn

from benchmark.models.adapting import with_channels
from benchmark.models.registry import register_model


@register_model("resnet20", channels_last=True)
def resnet20(classes: int, channels: int, size: int) -> nn.Module:
    """Build a ResNet-20 with 16, 32 and 64 maps, 0.27 million parameters.

    Args:
        classes: the number of classes.
        channels: of the images.
        size: height and width of the images in pixels; not used.
    """
    from fedml.model.cv.resnet import resnet20

    return with_channels(resnet20(classes), channels)


@register_model("resnet56", channels_last=True)
def resnet56(classes: int, channels: int, size: int) -> nn.Module:
    """Build FedML's "resnet56" as shipped, 0.59 million parameters.

    Args:
        classes: the number of classes.
        channels: of the images.
        size: height and width of the images in pixels; not used.
    """
    from fedml.model.cv.resnet import resnet56

    return with_channels(resnet56(classes), channels)
