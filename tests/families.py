"""Image networks of many families, each as narrow as it can be, and federations that train them for a few steps."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from fedml.model.cv.darts import genotypes
from fedml.model.cv.darts.model import NetworkCIFAR
from fedml.model.cv.efficientnet import EfficientNet
from fedml.model.cv.resnet import resnet56
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision import models
from torchvision.models import convnext, efficientnet, regnet, resnet, swin_transformer

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.networks.outputs import logits_of
from tiny import digits, state_of

TEN = {"num_classes": 10}
STEPS, BATCH = 2, 8


class Family(NamedTuple):
    """A network, the shape of its images, the expected layer and size of the probe images, and a learning rate."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layer: str
    size: tuple[int, int] | None
    rate: float = 0.05


def plain(axes: int = 2, channels: int = 1) -> nn.Sequential:
    """Two convolutions, of signals, images or volumes."""
    conv, norm = [nn.Conv1d, nn.Conv2d, nn.Conv3d][axes - 1], [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d][axes - 1]
    pool = [nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d][axes - 1]
    layers = [conv(channels, 8, 3, 2, 1), norm(8), nn.ReLU(), conv(8, 16, 3, padding=1), norm(16), nn.ReLU()]
    return nn.Sequential(*layers, pool(1), nn.Flatten(), nn.Linear(16, 10))


class Frozen(nn.Module):
    """Features without a gradient, and a head that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = plain()[:-1].requires_grad_(False), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.features(images)
        return self.head(features)


class AddsChannels(nn.Module):
    """Takes images without channels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = plain()

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images[:, None])


class Viewed(nn.Module):
    """Makes four rows of an image that is twice as wide, without an error."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 8, 8)), None
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).permute(0, 2, 3, 1).reshape(-1, 16))


def vit() -> nn.Module:
    return models.VisionTransformer(32, 8, 2, 2, 16, 32, **TEN)


def swin(version: int = 1) -> nn.Module:
    given: dict[str, Any] = {}
    if version == 2:
        given = {
            "block": swin_transformer.SwinTransformerBlockV2,
            "downsample_layer": swin_transformer.PatchMergingV2,
        }
    return models.SwinTransformer([2, 2], 16, [2, 2], [2, 2], [4, 4], stochastic_depth_prob=0.0, **TEN, **given)


def darts() -> nn.Module:
    network = NetworkCIFAR(4, 10, 2, True, genotypes.FedNAS_V1)
    network.drop_path_prob = 0.0
    return network


def small_efficientnet() -> nn.Module:
    blocks, _ = efficientnet._efficientnet_conf("efficientnet_b0", width_mult=0.25, depth_mult=0.3)
    return models.EfficientNet(blocks, 0.2, last_channel=64, **TEN)


def small_vgg() -> nn.Module:
    network = models.VGG(models.vgg.make_layers([8, "M", 16, "M"], batch_norm=True), init_weights=False)
    network.avgpool, network.classifier = nn.AdaptiveAvgPool2d(2), nn.Linear(64, 10)
    return network


def mnasnet() -> nn.Module:
    """With a momentum of which a few batches are enough: with torchvision's, it overflows in eval mode."""
    network = models.MNASNet(0.25, **TEN)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.5
    return network


def small_convnext() -> nn.Module:
    setting = [
        convnext.CNBlockConfig(16, 32, 1),
        convnext.CNBlockConfig(32, 64, 1),
        convnext.CNBlockConfig(64, None, 1),
    ]
    return models.ConvNeXt(setting, **TEN)


def small_regnet() -> nn.Module:
    blocks = regnet.BlockParams.from_init_params(depth=4, w_0=16, w_a=16.0, w_m=2.0, group_width=8)
    return models.RegNet(blocks, stem_width=16, **TEN)


IMAGE, WIDE = (3, 32, 32), (3, 24, 40)
FAMILIES = {
    "plain": Family(plain, (1, 16, 16), "5", (16, 16)),
    "three channels": Family(lambda: plain(channels=3), IMAGE, "5", (32, 32)),
    "not square": Family(plain, (1, 12, 20), "5", (12, 20)),
    "no channels": Family(AddsChannels, (16, 16), "layers.5", (16, 16)),
    "signals": Family(lambda: plain(1), (1, 64), "5", None),
    "volumes": Family(lambda: plain(3), (1, 8, 8, 8), "5", None),
    "no_grad": Family(Frozen, (1, 16, 16), "features.5", (16, 16)),
    "view": Family(Viewed, (1, 16, 16), "features.1", (16, 16)),
    "resnet": Family(lambda: models.ResNet(resnet.BasicBlock, [1, 1, 1, 1], **TEN), WIDE, "layer4", (48, 80)),
    "vgg": Family(small_vgg, IMAGE, "features.6", (32, 32)),
    "densenet": Family(lambda: models.DenseNet(8, (2, 2), 16, **TEN), IMAGE, "features", (32, 32)),
    "mobilenet_v2": Family(lambda: models.mobilenet_v2(width_mult=0.25, **TEN), IMAGE, "features", (64, 64)),
    "mobilenet_v3": Family(lambda: models.mobilenet_v3_small(width_mult=0.5, **TEN), IMAGE, "features", (64, 64)),
    "efficientnet": Family(small_efficientnet, IMAGE, "features", (64, 64)),
    "convnext": Family(small_convnext, IMAGE, "features", (32, 32)),
    "regnet": Family(small_regnet, IMAGE, "trunk_output", (32, 32)),
    "squeezenet": Family(lambda: models.squeezenet1_1(**TEN), IMAGE, "classifier.2", (64, 64)),
    "shufflenet": Family(lambda: models.ShuffleNetV2([1, 1, 1], [8, 16, 32, 64, 64], **TEN), IMAGE, "conv5", (64, 64)),
    "mnasnet": Family(mnasnet, IMAGE, "layers", (64, 64), 0.02),
    "googlenet": Family(
        lambda: models.googlenet(aux_logits=True, init_weights=False, **TEN), IMAGE, "inception5b", (64, 64)
    ),
    "inception_v3": Family(
        lambda: models.inception_v3(aux_logits=False, init_weights=False, **TEN), (3, 75, 75), "Mixed_7c", (150, 150)
    ),
    "vit": Family(vit, IMAGE, "encoder.layers.encoder_layer_1.ln_1", (32, 32)),
    "swin": Family(swin, IMAGE, "permute", (32, 32)),
    "swin_v2": Family(lambda: swin(2), IMAGE, "permute", (32, 32)),
    "maxvit": Family(
        lambda: models.MaxVit((32, 32), 16, 4, [16, 32], [1, 1], 8, 0.0, **TEN), IMAGE, "blocks.1", (32, 32)
    ),
    "fedml darts": Family(darts, IMAGE, "cells.1", (32, 32)),
    "fedml efficientnet": Family(lambda: EfficientNet.from_name("efficientnet-b0", **TEN), IMAGE, "_bn1", (64, 64)),
    "fedml resnet56": Family(lambda: resnet56(10), IMAGE, "layer3", (32, 32)),
}


def build(name: str) -> nn.Module:
    """Return a network with weights that are the same each time; FedML's print."""
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        return FAMILIES[name].build()


def images_of(shape: tuple[int, ...], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return digits in the shape that a network takes."""
    images, labels = digits()
    drawn = torch.randperm(len(images), generator=generator)[:count]
    images, labels = images[drawn], labels[drawn]
    if len(shape) == 2 and shape[0] > 1:
        return interpolate(images, shape)[:, 0], labels
    if len(shape) == 2:
        return interpolate(images.flatten(2), shape[1]), labels
    if len(shape) == 4:
        return interpolate(images[:, :, None].expand(-1, -1, 8, -1, -1), shape[1:]), labels
    return interpolate(images, shape[1:]).repeat(1, shape[0], 1, 1), labels


def trained(network: nn.Module, images: Tensor, labels: Tensor, rate: float = 0.05) -> dict[str, Tensor]:
    """Return the state of a network after one epoch by SGD."""
    network.train()
    like = next(network.parameters())
    optimizer = torch.optim.SGD([each for each in network.parameters() if each.requires_grad], lr=rate)
    for batch, wanted in zip(images.to(like).split(BATCH), labels.split(BATCH), strict=True):
        optimizer.zero_grad()
        cross_entropy(logits_of(network(batch)).float(), wanted).backward()
        optimizer.step()
    network.eval()
    return state_of(network)


def federation(network: nn.Module, shape: tuple[int, ...], clients: int = 8, rate: float = 0.05) -> Round:
    """Return a round of clients that train a network, which has been trained on two batches before."""
    generator = torch.Generator().manual_seed(1)
    start = trained(network, *images_of(shape, STEPS * BATCH, generator), rate)
    uploads = []
    for _ in range(clients):
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                tensor.copy_(start[name])
        uploads.append(trained(network, *images_of(shape, STEPS * BATCH, generator), rate))
    return Round(
        number=1,
        client_ids=range(clients),
        uploads=uploads,
        samples=[STEPS * BATCH] * clients,
        global_model=start,
        network=network,
        test_data=[images_of(shape, 16, generator)],
    )


def attacked(round: Round, copies: tuple[int, ...] = (2, 5), noisy: int | None = None) -> list[dict[str, Tensor]]:
    """Return the uploads, with one random step, hidden by a little noise, by some clients, and noise by another."""
    generator = torch.Generator().manual_seed(2)
    start, uploads = round.global_model, list(round.uploads)

    def random_step() -> dict[str, Tensor]:
        return {name: torch.randn(start[name].shape, generator=generator) for name in round.parameters}

    def moved(like: int, step: dict[str, Tensor], lengths: Callable[[str], float]) -> dict[str, Tensor]:
        changed = {
            name: start[name].double() + lengths(name) * tensor.double() / float(tensor.norm())
            for name, tensor in step.items()
        }
        return {
            name: changed[name].to(tensor.dtype) if name in changed else tensor
            for name, tensor in round.uploads[like].items()
        }

    def usual(name: str) -> float:
        return float(torch.stack([(each[name] - start[name]).double().norm() for each in round.uploads]).median())

    agreed = random_step()
    for client in copies:
        own = random_step()
        uploads[client] = moved(copies[0], {name: agreed[name] + 0.02 * own[name] for name in agreed}, usual)
    if noisy is not None:
        uploads[noisy] = moved(noisy, random_step(), lambda name: 2 * float(start[name].double().norm()) + 0.1)
    return uploads
