"""torchvision's networks: ResNet-18 (He et al. 2016) and MobileNetV3-Large (Howard et al. 2019).

The running statistics of MobileNet's BatchNorm change slowly (momentum 0.01). With randomly drawn weights, they need
hundreds of batches before they fit and the test accuracy rises.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmark.models.adapting import load_pretrained, with_channels
from benchmark.models.registry import register_model


@register_model("resnet18", channels_last=True, weights=("imagenet",))
def resnet18(classes: int, channels: int, size: int, weights: str | None = None) -> nn.Module:
    """Build torchvision's ResNet-18, unchanged but for classes and channels.

    Its first convolution and pooling reduce the height by 4 together: the last maps are 1 x 1 on 32 x 32 pixels.

    Args:
        classes: the number of classes.
        channels: of the images; 3 for pretrained weights.
        size: height and width of the images in pixels; not used.
        weights: "imagenet" for pretrained weights; None: drawn by torch's random state.

    Raises:
        SettingsError: if pretrained weights are not available.
    """
    from torchvision.models import ResNet18_Weights, resnet18

    if weights is None:
        plain: nn.Module = resnet18(num_classes=classes)
        return with_channels(plain, channels)
    network = resnet18()
    load_pretrained(network, ResNet18_Weights.IMAGENET1K_V1, "resnet18", channels)
    network.fc = nn.Linear(network.fc.in_features, classes)
    return network  # type: ignore[no-any-return]  # torchvision has no types


@register_model("resnet18_gn", channels_last=True)
def resnet18_gn(classes: int, channels: int, size: int) -> nn.Module:
    """Build torchvision's ResNet-18 with GroupNorm of two groups in place of each BatchNorm.

    Source of the two groups: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, section 5.

    Args:
        classes: the number of classes.
        channels: of the images.
        size: height and width of the images in pixels; not used.
    """
    from torchvision.models import resnet18

    network: nn.Module = resnet18(num_classes=classes, norm_layer=partial(nn.GroupNorm, 2))
    return with_channels(network, channels)


@register_model("mobilenet_v3_large", channels_last=True, weights=("imagenet",))
def mobilenet_v3_large(classes: int, channels: int, size: int, weights: str | None = None) -> nn.Module:
    """Build torchvision's MobileNetV3-Large, unchanged but for classes and channels.

    The last maps are 1 x 1 on 32 x 32 pixels.

    Args:
        classes: the number of classes.
        channels: of the images; 3 for pretrained weights.
        size: height and width of the images in pixels; not used.
        weights: "imagenet" for pretrained weights; None: drawn by torch's random state.

    Raises:
        SettingsError: if pretrained weights are not available.
    """
    from torchvision.models import MobileNet_V3_Large_Weights, mobilenet_v3_large

    if weights is None:
        plain: nn.Module = mobilenet_v3_large(num_classes=classes)
        return with_channels(plain, channels)
    network = mobilenet_v3_large()
    load_pretrained(network, MobileNet_V3_Large_Weights.IMAGENET1K_V2, "mobilenet_v3_large", channels)
    network.classifier[-1] = nn.Linear(network.classifier[-1].in_features, classes)
    return network  # type: ignore[no-any-return]  # torchvision has no types
