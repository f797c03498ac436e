"""What the backdoors have in common: the target class, the poisoned samples, and the test images with the trigger."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.data_poisoning import DataPoisoning, PoisoningSettings, check_class
from fedml_gradcam_ae.attacks.shared.poisoned_batches import PoisonedBatches, relabeled
from fedml_gradcam_ae.attacks.shared.triggers import Box, PixelRange, Position, pixel_range, square, stamped
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.networks.images import draw_images, seeded_generator
from fedml_gradcam_ae.networks.outputs import Classifier, count_classes

IMAGES = 1000  # the number of images in which the range of the pixels is looked for


class BackdoorSettings(PoisoningSettings):
    """The settings of all backdoors.

    Images may be normalized: unless they are set, the smallest and the largest pixel of each channel are those of the
    attacker's own images, and at test time those of the server's test images.
    """

    target: int = Field(default=0, ge=0, description="the class that images with the trigger are to be taken for")
    share: float = Field(default=0.5, ge=0, le=1, description="the share of an attacker's samples that it poisons")
    pixel_low: float | None = Field(
        default=None, description="the smallest value of a pixel; null: the smallest one found, for each channel"
    )
    pixel_high: float | None = Field(
        default=None, description="the largest value of a pixel; null: the largest one found, for each channel"
    )


class Backdoor(DataPoisoning):
    """An attack whose attackers train on images with a trigger, labeled as the target class.

    A subclass implements `with_trigger`; `with_own_trigger` and `check_images` where they differ.
    """

    settings: BackdoorSettings

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self._tested: PixelRange | None = None

    def with_trigger(self, images: Tensor, pixels: PixelRange) -> Tensor:
        """Return copies of the images with the whole trigger.

        Args:
            images: (images, channels, height, width).
            pixels: the range of each channel.
        """
        raise NotImplementedError

    def with_own_trigger(self, images: Tensor, pixels: PixelRange, attacker: int, attackers: int) -> Tensor:
        """Return copies of the images with what one attacker has of the trigger: the whole.

        Args:
            images: (images, channels, height, width).
            pixels: the range of each channel.
            attacker: the attacker's number among all attackers, from 0.
            attackers: the number of all attackers.
        """
        return self.with_trigger(images, pixels)

    def check_images(self, height: int, width: int) -> None:
        """Check that the trigger fits on images of a size.

        Args:
            height: of the images.
            width: of the images.

        Raises:
            SettingsError: if it does not.
        """

    @override
    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Check the trigger and the target class, and find the range of the test images' pixels.

        Args:
            network: the architecture.
            test_data: the server's batches (images, labels).

        Raises:
            SettingsError: if the trigger does not fit on the images, or there is no such class.
            ValueError: if there are no test images, or the network cannot run on them.
        """
        images = some_images(test_data)
        self.check_images(images.shape[-2], images.shape[-1])
        self.count_classes(network, images)
        self._tested = self._range(images)

    def count_classes(self, network: nn.Module, images: Tensor) -> int:
        """Return the number of classes, after a check that the target is one of them.

        Args:
            network: the architecture.
            images: (images, channels, height, width).

        Raises:
            SettingsError: if there is no such class.
            ValueError: if the network cannot run on the images.
        """
        images = images[:1].to(next(network.parameters()))
        classes = count_classes(Classifier(network, self.settings.logits), images)
        check_class("target", self.settings.target, classes)
        return classes

    @override
    def poison_data(
        self, network: nn.Module, data: Iterable[Any], attacker: int = 0, attackers: int = 1
    ) -> PoisonedBatches:
        """Return the batches that an attacker trains on: a share of the images with the trigger, as the target class.

        Args:
            network: the model that it trains.
            data: the attacker's own batches (images, labels).
            attacker: the attacker's number among all attackers, from 0.
            attackers: the number of all attackers.
        """
        pixels = self._range(some_images(data))

        def change(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
            stamped = self.with_own_trigger(images[:count], pixels, attacker, attackers)
            chosen = torch.arange(len(labels)) < count
            return torch.cat([stamped, images[count:]]), relabeled(labels, chosen, self.settings.target)

        return self.training_batches(network, data, change, self.settings.share)

    @override
    def triggered(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the images of other classes than the target with the trigger, and the target class for each.

        Args:
            images: (images, channels, height, width).
            labels: (images,), their classes, -1 for none.
        """
        others = images[(labels >= 0) & (labels != self.settings.target)]
        pixels = self._range(images) if self._tested is None else self._tested
        return self.with_trigger(others, pixels), torch.full((len(others),), self.settings.target)

    def _range(self, images: Tensor) -> PixelRange:
        return pixel_range(images, self.settings.pixel_low, self.settings.pixel_high)


class PatchSettings(BackdoorSettings):
    """The settings of the backdoors whose trigger is a square of one color."""

    trigger_size: int = Field(default=3, ge=1, description="height and width of the square in pixels")
    position: Position = Field(default="bottom_right", description="where the square is")
    trigger_value: float | Literal["high", "low"] = Field(
        default="high",
        description="its pixels: a number, as the network gets them, or the largest or smallest value of each channel",
    )


class PatchBackdoor(Backdoor):
    """A backdoor whose trigger is a square of one color."""

    settings: PatchSettings

    @override
    def check_images(self, height: int, width: int) -> None:
        """Check that the square fits; see `Backdoor.check_images`."""
        size = self.settings.trigger_size
        if size > min(height, width):
            raise SettingsError(
                f"attack_params.trigger_size: a square of {size} x {size} pixels does not fit on images of {height} x "
                f"{width}; at most {min(height, width)} here."
            )

    @override
    def with_trigger(self, images: Tensor, pixels: PixelRange) -> Tensor:
        """Return copies of the images with the square."""
        return stamped(images, [self.square(images)], self.color(pixels))

    def square(self, images: Tensor) -> Box:
        """Return where the square is.

        Args:
            images: (images, channels, height, width).
        """
        return square(images.shape[-2], images.shape[-1], self.settings.trigger_size, self.settings.position)

    def color(self, pixels: PixelRange) -> Tensor:
        """Return the square's color, (channels,).

        Args:
            pixels: the range of each channel.
        """
        value = self.settings.trigger_value
        if isinstance(value, str):
            return pixels.high if value == "high" else pixels.low
        return torch.full_like(pixels.high, value)


def some_images(data: Iterable[Any]) -> Tensor:
    """Return some of the images of a data set, at most 1000, always the same ones; labels do not matter.

    Args:
        data: batches (images, labels).

    Raises:
        SettingsError: if they are not of shape (images, channels, height, width).
        ValueError: if there is none.
    """
    images, _ = draw_images(data, IMAGES, seeded_generator(0), labeled=False)
    check_shape(images)
    return images


def check_shape(images: Tensor) -> None:
    """Check that images have channels, rows and columns, in which a trigger has a place.

    Args:
        images: of a data set.

    Raises:
        SettingsError: if they have not.

    Example:
        >>> check_shape(torch.zeros(5, 784))
        Traceback (most recent call last):
            ...
        fedml_gradcam_ae.contract.settings.SettingsError: attack_type: a backdoor needs images of shape (channels, \
height, width), found (784,). Reshape them where the data are loaded, or take label_flip.
    """
    if images.dim() != 4:
        raise SettingsError(
            "attack_type: a backdoor needs images of shape (channels, height, width), found "
            f"{tuple(images.shape[1:])}. Reshape them where the data are loaded, or take label_flip."
        )
