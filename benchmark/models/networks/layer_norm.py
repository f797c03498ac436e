"""Networks with LayerNorm, small enough for 32 x 32 pixels: a ConvNeXt and a vision transformer."""

from __future__ import annotations

from torch import nn

from benchmark.models.adapting import with_channels
from benchmark.models.registry import register_model
from fedml_gradcam_ae.contract.settings import SettingsError

PATCH = 4  # pixels per side of a patch, in both networks


@register_model("convnext")
def convnext(classes: int, channels: int, size: int) -> nn.Module:
    """Build a ConvNeXt of three stages with two blocks each, 48, 96 and 192 channels, 0.91 million parameters.

    Source: Liu et al., "A ConvNet for the 2020s", CVPR 2022; torchvision's `ConvNeXt`. The last maps are 2 x 2 on 32 x
    32 pixels.

    Args:
        classes: the number of classes.
        channels: of the images.
        size: height and width of the images in pixels; not used.
    """
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    stages = [CNBlockConfig(48, 96, 2), CNBlockConfig(96, 192, 2), CNBlockConfig(192, None, 2)]
    return with_channels(ConvNeXt(stages, num_classes=classes), channels)


@register_model("vit")
def vit(classes: int, channels: int, size: int) -> nn.Module:
    """Build a vision transformer of four blocks with four heads and 128 channels, 0.55 million parameters.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; torchvision's `VisionTransformer`. An image
    of 32 x 32 pixels has 8 x 8 patches. It takes images of one size only.

    Args:
        classes: the number of classes.
        channels: of the images.
        size: height and width of the images in pixels, a multiple of 4.

    Raises:
        SettingsError: if the images cannot be cut into patches.
    """
    from torchvision.models import VisionTransformer

    if size % PATCH:
        raise SettingsError(f"data.size: `vit` cuts images into patches of {PATCH} x {PATCH} pixels, found {size}.")
    return with_channels(VisionTransformer(size, PATCH, 4, 4, 128, 256, num_classes=classes), channels)
