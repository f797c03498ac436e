"""The semantic backdoor: real images of a rare kind are labeled as another class; no pixel is changed.

Sources: Wang et al., "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS 2020, section 3,
whose attackers relabel images from the tail of a class, taken from elsewhere; and Bagdasaryan et al., "How To Backdoor
Federated Learning", AISTATS 2020, section 4.1, whose attackers relabel the green cars of CIFAR-10. Here the tail is
computed: the images of one class in which a property that a function of the pixels measures is strongest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.backdoor import Backdoor, BackdoorSettings, check_shape
from fedml_gradcam_ae.attacks.shared.data_poisoning import check_class
from fedml_gradcam_ae.attacks.shared.poisoned_batches import PoisonedBatches, relabeled
from fedml_gradcam_ae.attacks.shared.triggers import PixelRange
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.networks.images import draw_images, seeded_generator
from fedml_gradcam_ae.networks.labels import class_indices

Property = Literal["leans_left", "leans_right", "bright", "dark", "red", "green", "blue"]
COLORS = ("red", "green", "blue")
_ALL = 2**62  # more images than any data set has


@register_attack("semantic")
class Semantic(Backdoor):
    """The images of one class that have a property most, labeled as the target class in the attackers' training.

    The tail is the share `tail` of the images of class `source` in which `property` is strongest: of an attacker's own
    images in training, of the server's test images at test time. An attacker repeats its own tail, labeled as the
    target, until it is the share `share` of its samples; the other images stay honest. An attacker without such an
    image trains honestly. Settings that fit the data sets of the benchmark:

    * digits: `source: 6, property: leans_left`, sixes that lean to the left;
    * CIFAR-10: `source: 1, property: green`, green cars;
    * GTSRB: `source: 14, property: dark`, stop signs in the dark.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae.attacks.semantic import Semantic
        >>> attack = Semantic(Semantic.Settings(source=7, property="bright", tail=0.5, share=0.0))
        >>> images = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.7])[:, None, None, None].expand(-1, 1, 2, 2)
        >>> for _, labels in attack.poison_data(torch.nn.Identity(), [(images, torch.tensor([7, 7, 4, 7, 7]))]):
        ...     print(labels)
        tensor([7, 0, 4, 7, 0])
    """

    class Settings(BackdoorSettings):
        """The settings of the attack; `share: 0` relabels the attackers' own images of the tail and repeats none."""

        source: int = Field(default=6, ge=0, description="the class whose tail is relabeled")
        property: Property = Field(
            default="leans_left",
            description="what the tail has most of: a bright figure that leans to one side, bright or dark pixels, or "
            "one color channel more than the others",
        )
        tail: float = Field(default=0.3, gt=0, le=1, description="the share of the class's images that are its tail")

        @model_validator(mode="after")
        def _check_classes(self) -> Semantic.Settings:
            if self.source == self.target:
                raise ValueError(f"source and target must be two classes, found {self.source} for both")
            return self

    settings: Settings

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self._least: float | None = None

    @override
    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Check the classes and the property, and find where the tail of the test images begins.

        Args:
            network: the architecture.
            test_data: the server's batches (images, labels).

        Raises:
            SettingsError: if there is no such class, none of its images, or no such channel, or if the images have
                another shape than (images, channels, height, width).
            ValueError: if there are no test images, or the network cannot run on them.
        """
        images, labels = draw_images(test_data, _ALL, seeded_generator(0))
        check_shape(images)
        if self.settings.property in COLORS and images.shape[1] != len(COLORS):
            raise SettingsError(
                f"attack_params.property: {self.settings.property} needs images of three channels, found "
                f"{images.shape[1]}; bright and dark work with any."
            )
        check_class("source", self.settings.source, self.count_classes(network, images))
        if not bool((labels == self.settings.source).any()):
            raise SettingsError(
                f"attack_params.source: no test image is of class {self.settings.source}, so that the attack's success "
                f"could not be measured; there are images of {sorted(set(labels.tolist()))}."
            )
        self._tested = self._range(images)
        self._least = self._begin(images, labels, self._tested)

    @override
    def poison_data(
        self, network: nn.Module, data: Iterable[Any], attacker: int = 0, attackers: int = 1
    ) -> PoisonedBatches:
        """Return the batches that an attacker trains on; see the class.

        Args:
            network: the model that it trains.
            data: the attacker's own batches (images, labels).
            attacker: the attacker's number among all attackers, from 0.
            attackers: the number of all attackers.
        """
        settings = self.settings
        images, labels = draw_images(data, _ALL, seeded_generator(settings.seed, 7, attacker), labeled=False)
        pixels = self._range(images)
        least = self._begin(images, labels, pixels)
        tail = images[self._in_tail(images, labels, pixels, least)]
        repeated = 0

        def change(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
            nonlocal repeated
            chosen = self._in_tail(images, class_indices(labels), pixels, least)
            if count and len(tail):
                order = torch.arange(repeated, repeated + count) % len(tail)
                repeated += count
                chosen[:count] = True
                images = torch.cat([tail[order].to(images), images[count:]])
            return images, relabeled(labels, chosen, settings.target)

        return self.training_batches(network, data, change, settings.share if len(tail) else 0.0)

    @override
    def triggered(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the images of the tail, unchanged, and the target class for each.

        Args:
            images: (images, channels, height, width).
            labels: (images,), their classes, -1 for none.
        """
        pixels = self._range(images) if self._tested is None else self._tested
        least = self._begin(images, labels, pixels) if self._least is None else self._least
        tail = images[self._in_tail(images, labels, pixels, least)]
        return tail, torch.full((len(tail),), self.settings.target)

    def _begin(self, images: Tensor, labels: Tensor, pixels: PixelRange) -> float:
        """Return the smallest measure of an image of the tail; infinite if there is no image of the class."""
        of_source = images[labels == self.settings.source]
        return tail_begins(measure(of_source, self.settings.property, pixels), self.settings.tail)

    def _in_tail(self, images: Tensor, labels: Tensor, pixels: PixelRange, least: float) -> Tensor:
        """Return which images are in the tail, (images,), bool."""
        return (labels == self.settings.source) & (measure(images, self.settings.property, pixels) >= least)


def measure(images: Tensor, wanted: Property, pixels: PixelRange) -> Tensor:
    """Return how much of a property each image has.

    `leans_left` is the covariance of row and column, weighted by the pixels' brightness, `leans_right` its negative;
    `bright` is the mean of the pixels, `dark` its negative; `red`, `green` and `blue` are the mean of this one of three
    channels less the mean of the two others. Pixels are scaled to 0..1 in each channel.

    Args:
        images: (images, channels, height, width).
        wanted: the property.
        pixels: the range of each channel.

    Returns:
        (images,).

    Example:
        >>> green, white = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 1.0])
        >>> images = torch.stack([green, white])[:, :, None, None].expand(-1, -1, 2, 2)
        >>> pixels = PixelRange(torch.zeros(3), torch.ones(3))
        >>> measure(images, "bright", pixels), measure(images, "green", pixels)
        (tensor([0.3333, 1.0000]), tensor([1., 0.]))
    """
    if len(images) == 0:
        return torch.zeros(0)
    low, high = pixels
    span = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    scaled = (images.float() - low[:, None, None]) / span[:, None, None]
    if wanted in ("leans_left", "leans_right"):
        lean = _covariance(scaled.mean(dim=1).clamp(min=0))
        return lean if wanted == "leans_left" else -lean
    means = scaled.mean(dim=(2, 3))
    if wanted in COLORS:
        channel = COLORS.index(wanted)
        return means[:, channel] - (means.sum(dim=1) - means[:, channel]) / (len(COLORS) - 1)
    return means.mean(dim=1) if wanted == "bright" else -means.mean(dim=1)


def _covariance(weights: Tensor) -> Tensor:
    """Return the covariance of row and column under weights, (images, height, width), as shares of the image's sides.

    Above 0, what is further down is further right: the figure leans to the left.
    """
    height, width = weights.shape[-2:]
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width)[None, :] / width
    total = weights.sum(dim=(1, 2)).clamp(min=torch.finfo(torch.float32).tiny)
    down, right = ((weights * places).sum(dim=(1, 2)) / total for places in (rows, columns))
    return (weights * rows * columns).sum(dim=(1, 2)) / total - down * right


def tail_begins(values: Tensor, share: float) -> float:
    """Return the smallest of the largest values.

    Args:
        values: (images,).
        share: how many of them are the largest, rounded up.

    Returns:
        The value; infinity if there are none.

    Example:
        >>> tail_begins(torch.tensor([0.1, 0.4, 0.2, 0.3]), share=0.5), tail_begins(torch.zeros(0), share=0.5)
        (0.30000001192092896, inf)
    """
    count = math.ceil(share * len(values) - 1e-9)
    return float(values.topk(count).values[-1]) if count else math.inf
