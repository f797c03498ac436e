"""The probe images of the `robust` profile, in two sizes; docs/robust.md says why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fedml_gradcam_ae.defenses.gradcam_ae.settings import ProfileSettings
from fedml_gradcam_ae.heatmaps import class_maps, draw_probe, find_target_layer, resize
from fedml_gradcam_ae.networks.outputs import Classifier, count_classes

SMALLEST = 2  # the fewest positions per side of a heat map: a single position shows no place in the image
POOLED = 8  # the positions per side of an earlier stage from which on a single position of the last one is no stride's
LARGEST_IMAGE = 1024  # pixels per side: from this size on, `probe_size: auto` stops doubling


@dataclass(frozen=True)
class ProbeImages:
    """The probe images of one round.

    Attributes:
        large: (images, channels, height, width), enlarged so that their maps have several positions.
        native: (images, channels, height, width), in the size that the network is trained on.
        labels: (images,), the labels of `large`; 0 for an image without one.
    """

    large: Tensor
    native: Tensor
    labels: Tensor


class ClassProbe:
    """A source of probe images: `prepare` finds the layer and the image size, `draw` draws a round's images.

    Args:
        settings: the settings of the profile.
    """

    def __init__(self, settings: ProfileSettings) -> None:
        self.settings = settings
        self.size: int | None = None  # pixels per side of the large images; None: they are not resized
        self._classes: int | None = None

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> str:
        """Find the target layer and the size of the large images, so that errors show before any training.

        Args:
            network: the architecture.
            test_data: the server's batches (images, labels).

        Returns:
            The layer's dotted name.

        Raises:
            ValueError: if the test data hold no usable image, the network cannot run on them or returns no logits, the
                layer does not exist, or its maps are smaller than 2 x 2.
        """
        network = Classifier(network, self.settings.logits)
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
        return ProbeImages(large, images[: self.settings.native_images], labels[:count].clamp(min=0))

    def _draw(self, network: nn.Module, test_data: Iterable[Any], number: int) -> tuple[Tensor, Tensor]:
        count = max(self.settings.probe_images, self.settings.native_images)
        return draw_probe(network, test_data, count, self.settings.seed, number, self._classes)

    def _layer_and_size(self, network: nn.Module, image: Tensor) -> tuple[str, int | None]:
        """Return the layer, and the size of the large images; None: they are not resized."""
        asked, name, size = self.settings.probe_size, self.settings.target_layer, min(image.shape[-2:])
        if image.dim() < 3:  # a flat vector, which the network itself reshapes to an image
            if isinstance(asked, int):
                raise ValueError(f"probe_size: images of {size} numbers in a row cannot be resized: `native`.")
            return find_target_layer(network, image, name), None
        if isinstance(asked, int):
            size = asked
        layer, side = self._look(network, image, size)
        native, first, largest = size, side, size
        while asked == "auto" and side < SMALLEST and size < LARGEST_IMAGE:
            size *= 2
            try:
                layer, side = self._look(network, image, size)
            except Exception:  # the network takes images of one size only: whatever its own code raises
                break
            largest = size
            if side < SMALLEST and self._pooled(network, image, size):
                break
        if side >= SMALLEST:
            return layer, size
        if name == "auto" and asked == "auto":
            # Enlarging does not help, since the size is fixed, or the last maps have one position at any size.
            size = min(2 * native, largest)
            return find_target_layer(network, resize(image, size), smallest=SMALLEST), size
        raise ValueError(
            f"The heat maps of layer {layer!r} are {first} position wide on images of {native} x {native} pixels: the "
            f"robust profile needs {SMALLEST} x {SMALLEST}. Raise probe_size, or name an earlier target_layer."
        )

    def _pooled(self, network: nn.Module, image: Tensor, size: int) -> bool:
        """Return whether the last maps have one position where those of an earlier stage have many."""
        try:
            return self._look(network, image, size, SMALLEST)[1] >= POOLED
        except ValueError:  # no stage has several positions on so small an image
            return False

    def _look(self, network: nn.Module, image: Tensor, size: int, smallest: int = 1) -> tuple[str, int]:
        """Return the layer on an image of a size, and the smaller side of its maps."""
        resized = resize(image, size)
        layer = find_target_layer(network, resized, self.settings.target_layer, smallest)
        return layer, min(class_maps(network, [network.state_dict()], resized, layer).shape[-2:])
