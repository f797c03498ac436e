"""CPU seconds per round of `gradcam_ae` beside Multi-Krum, on one network of each family, in one process.

    OMP_NUM_THREADS=1 python -m benchmark.speed.of_networks        # names of networks for a part

The timed region is `judge` on 20 uploads near one model, with nothing cached, by one thread. Both rules judge in turns,
five times each, and the time is that of the process, so that other work on the machine hardly counts. The limit is
three times Multi-Krum's time and half a second.
"""

from __future__ import annotations

import contextlib
import copy
import io
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from time import process_time
from typing import Any

import torch
from fedml.model.cv.cnn import CNN_WEB, CNN_DropOut, CNN_OriginalFedAvg
from fedml.model.cv.mobilenet import mobilenet
from fedml.model.cv.mobilenet_v3 import MobileNetV3
from fedml.model.cv.resnet import resnet20, resnet56
from fedml.model.cv.resnet_gn import resnet18
from torch import nn
from torchvision import models

from benchmark.speed.uploads import round_of
from fedml_gradcam_ae.contract import registry

CLIENTS, TURNS = 20, 5


def plain() -> nn.Module:
    """Return a small network of two convolutions for images of three channels and ten classes."""
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 10))


TEN = {"num_classes": 10}
IMAGE, WITHOUT_CHANNELS = (3, 32, 32), (28, 28)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (plain, IMAGE),
    "CNN_DropOut, 62 classes": (lambda: CNN_DropOut(False), WITHOUT_CHANNELS),
    "CNN_OriginalFedAvg": (lambda: CNN_OriginalFedAvg(True), WITHOUT_CHANNELS),
    "CNN_WEB": (CNN_WEB, IMAGE),
    "FedML resnet20": (lambda: resnet20(10), IMAGE),
    "FedML resnet56": (lambda: resnet56(10), IMAGE),
    "FedML resnet18_gn": (lambda: resnet18(**TEN), (3, 24, 24)),
    "FedML mobilenet": (lambda: mobilenet(class_num=10), IMAGE),
    "FedML mobilenet_v3": (lambda: MobileNetV3(model_mode="LARGE", **TEN), IMAGE),
    "resnet18": (lambda: models.resnet18(**TEN), IMAGE),
    "vgg11": (lambda: models.vgg11(**TEN), IMAGE),
    "densenet121": (lambda: models.densenet121(**TEN), IMAGE),
    "mobilenet_v2": (lambda: models.mobilenet_v2(**TEN), IMAGE),
    "efficientnet_b0": (lambda: models.efficientnet_b0(**TEN), IMAGE),
    "squeezenet1_1": (lambda: models.squeezenet1_1(**TEN), IMAGE),
    "shufflenet_v2_x1_0": (lambda: models.shufflenet_v2_x1_0(**TEN), IMAGE),
    "regnet_y_400mf": (lambda: models.regnet_y_400mf(**TEN), IMAGE),
    "ViT, 6 layers of 192": (lambda: models.VisionTransformer(32, 4, 6, 3, 192, 384, **TEN), IMAGE),
}


def seconds(name: str) -> tuple[float, float]:
    """Return the median seconds of a round by `gradcam_ae` and by Multi-Krum.

    Args:
        name: of `NETWORKS`.
    """
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        network = build()
    round = replace(round_of(network, CLIENTS), test_data=[(torch.rand(100, *shape), torch.randint(0, 10, (100,)))])
    known = registry.defenses()
    krum: Any = known["multi_krum"]
    rules = [known["gradcam_ae"](), krum(krum.Settings(malicious=2))]
    rules[0].prepare(round.network, round.test_data)
    taken: list[list[float]] = [[], []]
    for _ in range(TURNS):
        for rule, times in zip(rules, taken, strict=True):
            fresh = replace(round)
            start = process_time()
            copy.copy(rule).judge(fresh)
            times.append(process_time() - start)
    return statistics.median(taken[0]), statistics.median(taken[1])


def main(names: list[str]) -> None:
    """Print a table in Markdown.

    Args:
        names: of `NETWORKS`; none: all.
    """
    print("| network | `gradcam_ae`, s | `multi_krum`, s | ratio | of the limit |")
    print("| --- | --- | --- | --- | --- |")
    for name in names or NETWORKS:
        ours, krum = seconds(name)
        print(f"| {name} | {ours:.2f} | {krum:.2f} | {ours / krum:.1f} | {ours / (3 * krum + 0.5):.2f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
