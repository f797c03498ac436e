"""The probe images of the `robust` profile, in two sizes; docs/robust.md says why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.defenses.gradcam_ae.settings import ProfileSettings
from fedml_gradcam_ae.heatmaps import (
    draw_probe,
    find_target_layer,
    grad_cam,
    hinting,
    resizable,
    resize,
    shortest_side,
)
from fedml_gradcam_ae.networks.images import seeded_generator
from fedml_gradcam_ae.networks.outputs import Classifier, count_classes

SMALLEST = 2  # the fewest positions per side of a heat map: a single position shows no place in the image
POOLED = 8  # the positions per side of an earlier stage from which on a single position of the last one is no stride's
# The most numbers of an image's maps; of larger ones fewer classes are explained, since autoencoders of them would be
# slow: 10 of the 62 of FEMNIST where maps have 8 x 8 positions, and all of 100 where they have 2 x 2.
MOST_NUMBERS, FEWEST_CLASSES = 640, 10
LARGEST_MAP = 8  # Positions per side; larger maps are averaged to so many.
LARGEST_IMAGE = 1024  # pixels per side: from this size on, `probe_size: auto` stops doubling


def chosen_classes(classes: int, positions: int, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the classes that maps are made of: all, or as many as fit into `MOST_NUMBERS`, those of the images first.

    Args:
        classes: the number of classes.
        positions: the positions of a map.
        labels: (images,), int64.
        generator: draws the other classes.

    Returns:
        (chosen,), int64, ascending.

    Example:
        >>> chosen_classes(10, 64, torch.tensor([3]), torch.Generator()).tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        >>> chosen_classes(62, 64, torch.tensor([3]), torch.Generator()).shape
        torch.Size([10])
    """
    most = max(FEWEST_CLASSES, MOST_NUMBERS // positions)
    if classes <= most:
        return torch.arange(classes, device=labels.device)
    drawn = torch.randperm(classes, generator=generator).to(labels.device)
    own = torch.tensor(sorted(set(labels.tolist())), device=labels.device)
    return torch.cat([own, drawn[~torch.isin(drawn, own)]])[: max(most, len(own))].sort().values


@dataclass(frozen=True)
class ProbeImages:
    """The probe images of one round.

    Attributes:
        large: (images, channels, height, width), enlarged so that their maps have several positions.
        native: (images, channels, height, width), in the size that the network is trained on.
        labels: (images,), the labels of `large`; 0 for an image without one.
        classes: (chosen,), the classes that maps are made of, ascending.
    """

    large: Tensor
    native: Tensor
    labels: Tensor
    classes: Tensor


class ClassProbe:
    """A source of probe images: `prepare` finds the layer and the image size, `draw` draws a round's images.

    Args:
        settings: the settings of the profile.
    """

    def __init__(self, settings: ProfileSettings) -> None:
        self.settings = settings
        self.size: tuple[int, int] | None = None  # (height, width) of the large images; None: they are not resized
        self._classes: int | None = None
        self.positions = 1  # of a map, once it is averaged

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> str:
        """Find the target layer and the size of the large images, so that errors show before any training.

        Args:
            network: the architecture.
            test_data: the server's batches (images, labels).

        Returns:
            The layer's dotted name.

        Raises:
            ValueError: if the test data hold no usable image, the network cannot run on them or returns no logits, the
                layer does not exist, its maps are smaller than 2 x 2, or the network has no maps at all.
        """
        network = Classifier(network, self.settings.logits)
        with hinting(network):
            images, _ = self._draw(network, test_data, number=0)
            self._classes = count_classes(network, images)
            layer, self.size = self._layer_and_size(network, images[:1])
        return layer

    def draw(self, network: nn.Module, test_data: Iterable[Any], number: int) -> ProbeImages:
        """Return the images of round `number`.

        Args:
            network: the architecture.
            test_data: the server's batches (images, labels).
            number: the round, from 1.

        Raises:
            ValueError: if the test data hold no usable image.
        """
        images, labels = self._draw(network, test_data, number)
        count = self.settings.probe_images
        large = images[:count] if self.size is None else resize(images[:count], self.size)
        labels = labels[:count].clamp(min=0)
        assert self._classes is not None
        generator = seeded_generator(self.settings.seed, 10, number)
        classes = chosen_classes(self._classes, self.positions, labels, generator)
        return ProbeImages(large, images[: self.settings.native_images], labels, classes)

    def _draw(self, network: nn.Module, test_data: Iterable[Any], number: int) -> tuple[Tensor, Tensor]:
        count = max(self.settings.probe_images, self.settings.native_images)
        return draw_probe(network, test_data, count, self.settings.seed, number, self._classes)

    def _layer_and_size(self, network: Classifier, image: Tensor) -> tuple[str, tuple[int, int] | None]:
        """Return the layer, and the size of the large images; None: they are not resized."""
        asked, name = self.settings.probe_size, self.settings.target_layer
        if not resizable(network, image):
            if isinstance(asked, int):
                shape = " x ".join(map(str, image.shape[1:]))
                raise ValueError(f"probe_size: images of {shape} numbers cannot be resized: `native`.")
            layer, side = self._look(network, image, None)
            if side < SMALLEST and name == "auto":
                layer = self._look(network, image, None, SMALLEST)[0]
            return layer, None
        native = (asked, asked) if isinstance(asked, int) else (image.shape[-2], image.shape[-1])
        try:
            layer, side = self._look(network, image, native)
        except ValueError as error:
            raise ValueError(f"{error} Set probe_size to `auto`.") if isinstance(asked, int) else error from None
        first, factor, largest = side, 1, 1
        while asked == "auto" and side < SMALLEST and factor * min(native) < LARGEST_IMAGE:
            factor *= 2
            size = _times(native, factor)
            try:
                layer, side = self._look(network, image, size)
            except Exception:  # the network takes images of one size only: whatever its own code raises
                break
            largest = factor
            if side < SMALLEST and self._pooled(network, image, size):
                break
        if side >= SMALLEST:
            return layer, _times(native, largest)
        if name == "auto" and asked == "auto":
            # Enlarging does not help, since the size is fixed, or the last maps have one position at any size.
            size = _times(native, min(2, largest))
            return self._look(network, image, size, SMALLEST)[0], size
        raise ValueError(
            f"The heat maps of layer {layer!r} are {first} position wide on images of {native[0]} x {native[1]} "
            f"pixels: the robust profile needs {SMALLEST} x {SMALLEST}. Raise probe_size, or name an earlier "
            "target_layer."
        )

    def _pooled(self, network: Classifier, image: Tensor, size: tuple[int, int]) -> bool:
        """Return whether the last maps have one position where those of an earlier stage have many."""
        try:
            return self._look(network, image, size, SMALLEST)[1] >= POOLED
        except ValueError:  # no stage has several positions on so small an image
            return False

    def _look(
        self, network: Classifier, image: Tensor, size: tuple[int, int] | None, smallest: int = 1
    ) -> tuple[str, int]:
        """Return the layer on an image of a size (None: its own), and the smaller side of its maps."""
        resized = image if size is None else resize(image, size)
        count_classes(network, resized)  # tells in words that the network cannot run on this size
        layer = find_target_layer(network, resized, self.settings.target_layer, smallest)
        maps = grad_cam(network, [network.state_dict()], resized, layer)
        self.positions = min(maps.shape[-2], LARGEST_MAP) * min(maps.shape[-1], LARGEST_MAP)
        return layer, shortest_side(network, maps)


def _times(size: tuple[int, int], factor: int) -> tuple[int, int]:
    return size[0] * factor, size[1] * factor
