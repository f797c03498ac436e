"""The heat maps that a round's uploads make of test images drawn anew each round."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.heatmaps.gradcam import grad_cam
from fedml_gradcam_ae.heatmaps.scaling import min_max, resize
from fedml_gradcam_ae.heatmaps.target_layer import find_target_layer
from fedml_gradcam_ae.networks.images import draw_images, seeded_generator
from fedml_gradcam_ae.networks.outputs import Classifier, OutputSettings, count_classes

SMALLEST_MAP = 4


class ProbeSettings(OutputSettings, DefenseSettings):
    """Which images, which layer, and how the maps are scaled; the defaults are the paper's and its authors' code's."""

    probe_images: int = Field(default=1, ge=1, description="test images drawn anew each round")
    probe_size: int | Literal["native"] = Field(
        default=224, description="pixels that a probe image is resized to; `native` leaves it as it is"
    )
    target_layer: str = Field(
        default="auto", description="`auto`: the end of the last convolutional stage; or a dotted module name"
    )
    target_class: Literal["label", "argmax"] = Field(
        default="argmax", description="the class that is explained: the image's label, or each model's own answer"
    )
    map_scaling: Literal["min_max", "none"] = Field(
        default="min_max", description="`min_max` scales each map to [0, 1]"
    )
    map_size: int | Literal["native"] = Field(
        default=224, description="pixels that a map is resized to; `native` leaves it as it is"
    )
    seed: int = Field(default=0, ge=0, description="draws the probe and everything else that is random here")

    @model_validator(mode="after")
    def _check_pixels(self) -> ProbeSettings:
        for name, size, smallest in (("probe_size", self.probe_size, 1), ("map_size", self.map_size, SMALLEST_MAP)):
            if isinstance(size, int) and size < smallest:
                raise ValueError(f"{name} must be at least {smallest} pixels or `native`, found {size}")
        return self


class Probe:
    """Draws the images of a round and makes the maps."""

    def __init__(self, settings: ProbeSettings) -> None:
        self.settings = settings
        self._layer: str | None = None
        self._classes: int | None = None

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> str:
        """Find the target layer and check the size of its maps, so that a mistake shows before any training.

        Returns:
            The layer's dotted name.

        Raises:
            ValueError: if the test data hold no image that can be used, the network cannot run on them or returns no
                logits, the layer does not exist, or its maps are under 4 x 4.
        """
        network = Classifier(network, self.settings.logits)
        self._classes = count_classes(network, self.draw(network, test_data, number=0)[0])
        images, _ = self.draw(network, test_data, number=0)
        layer = find_target_layer(network, images, self.settings.target_layer)
        maps = grad_cam(network, [network.state_dict()], images[:1], layer)
        height, width = maps.shape[-2:]
        if min(height, width) < SMALLEST_MAP:
            raise ValueError(
                f"The heat maps of layer {layer!r} are {height} x {width} on images of {images.shape[-2]} x "
                f"{images.shape[-1]} pixels; under {SMALLEST_MAP} x {SMALLEST_MAP} they say next to nothing (a 1 x 1 "
                "map scaled to [0, 1] is always zero). Raise probe_size, or name an earlier target_layer."
            )
        self._layer = layer
        return layer

    def draw(self, network: nn.Module, test_data: Iterable[Any], number: int) -> tuple[Tensor, Tensor]:
        """The probe images of round `number`, (images, channels, height, width), and their labels, (images,).

        Raises:
            ValueError: if the test data hold no image that can be used.
        """
        count, seed, labeled = self.settings.probe_images, self.settings.seed, self.settings.target_class == "label"
        images, labels = draw_probe(network, test_data, count, seed, number, self._classes, labeled)
        size = self.settings.probe_size
        if size != "native" and images.dim() < 3:
            raise ValueError(f"probe_size: images of {images.shape[1]} numbers in a row cannot be resized: `native`.")
        return (images if size == "native" else resize(images, size)), labels

    def maps(self, round: Round) -> Tensor:
        """(clients, images, height, width) on the network's device; NaN or infinity where the arithmetic overflows.

        Raises:
            ValueError: as `prepare`, on its first call.
        """
        layer = self._layer or self.prepare(round.network, round.test_data)
        network = Classifier(round.network, self.settings.logits)
        images, labels = self.draw(network, round.test_data, round.number)
        target = labels if self.settings.target_class == "label" else None
        return self.scale(grad_cam(network, round.uploads, images, layer, target))

    def scale(self, maps: Tensor) -> Tensor:
        """Maps (clients, images, height, width) in the range and the size that the settings ask for."""
        if self.settings.map_scaling == "min_max":
            maps = min_max(maps)
        return maps if self.settings.map_size == "native" else resize(maps, self.settings.map_size)


def draw_probe(
    network: nn.Module,
    test_data: Iterable[Any],
    count: int,
    seed: int,
    number: int,
    classes: int | None = None,
    labeled: bool = False,
) -> tuple[Tensor, Tensor]:
    """So many of the server's test images in their own size, and their labels, drawn anew each round.

    Args:
        network: the images get the type and the device of its weights.
        test_data: the server's.
        count: how many images.
        seed: the defense's; clients must not know it.
        number: the round.
        classes: how many the network tells apart, if that is known.
        labeled: whether images without a label among these are left out.

    Raises:
        ValueError: if the test data hold no image that can be used.
    """
    try:
        images, labels = draw_images(
            test_data, count, seeded_generator(seed, 0, number), classes=classes, labeled=labeled
        )
    except ValueError as error:
        raise ValueError(f"The probe images are drawn from the server's test data. {error}") from None
    like = next(network.parameters())
    return images.to(like), labels.to(like.device)
