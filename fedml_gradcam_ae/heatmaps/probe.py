"""The heat maps of a round's uploads on test images that are drawn anew each round."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.heatmaps.differentiable import MapMethod
from fedml_gradcam_ae.heatmaps.gradcam import grad_cam
from fedml_gradcam_ae.heatmaps.layercam import layer_cam
from fedml_gradcam_ae.heatmaps.layout import resizable, shortest_side
from fedml_gradcam_ae.heatmaps.scaling import min_max, resize
from fedml_gradcam_ae.heatmaps.target_layer import find_target_layer, hinting
from fedml_gradcam_ae.networks.images import draw_images, seeded_generator
from fedml_gradcam_ae.networks.outputs import Classifier, OutputSettings, count_classes

log = logging.getLogger("fedml_gradcam_ae")

SMALLEST_MAP = 4  # the least height and width of a heat map, in pixels; see the message in `Probe.prepare`


class ProbeSettings(OutputSettings, DefenseSettings):
    """Settings of the images, the layer and the scale of the maps; defaults from the paper and its authors' code."""

    probe_images: int = Field(default=1, ge=1, description="number of test images, drawn anew each round")
    probe_size: int | Literal["native"] = Field(
        default=224, description="height and width in pixels that probe images are resized to; `native`: no resizing"
    )
    target_layer: str = Field(
        default="auto",
        description="dotted name of the module that is mapped; `auto`: the end of the last convolutional stage, "
        "or a transformer's last tokens",
    )
    target_class: Literal["label", "argmax"] = Field(
        default="argmax",
        description="class that is explained: the image's label, or the class that each model predicts",
    )
    map_method: MapMethod = Field(
        default="gradcam",
        description="`gradcam` weighs a feature map by its mean gradient; `layercam` weighs each of its positions by "
        "the positive part of its own gradient",
    )
    map_scaling: Literal["min_max", "none"] = Field(
        default="min_max", description="`min_max` scales each map to [0, 1]"
    )
    map_size: int | Literal["native"] = Field(
        default=224, description="height and width in pixels that heat maps are resized to; `native`: no resizing"
    )
    seed: int = Field(default=0, ge=0, description="seed of the probe images and of all other random numbers")

    @model_validator(mode="after")
    def _check_pixels(self) -> ProbeSettings:
        for name, size, smallest in (("probe_size", self.probe_size, 1), ("map_size", self.map_size, SMALLEST_MAP)):
            if isinstance(size, int) and size < smallest:
                raise ValueError(f"{name} must be at least {smallest} pixels or `native`, found {size}")
        return self


class Probe:
    """The probe images of each round, and the heat maps of uploads on them.

    Args:
        settings: the number and size of the images, the layer, and the scale of the maps.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(16, 2)).eval()
        >>> test_data = [(torch.rand(8, 1, 6, 6), torch.zeros(8, dtype=torch.long))]
        >>> probe = Probe(ProbeSettings(probe_images=3, probe_size="native", map_size="native"))
        >>> probe.prepare(network, test_data)
        '0'
        >>> images, labels = probe.draw(network, test_data, number=1)
        >>> images.shape, labels.tolist()
        (torch.Size([3, 1, 6, 6]), [0, 0, 0])
        >>> model = network.state_dict()
        >>> round = Round(
        ...     number=1,
        ...     client_ids=["a", "b"],
        ...     uploads=[model, model],
        ...     samples=[20, 20],
        ...     global_model=model,
        ...     network=network,
        ...     test_data=test_data,
        ... )
        >>> probe.maps(round).shape
        torch.Size([2, 3, 4, 4])
        >>> probe.scale(torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])).tolist()
        [[[[0.0, 0.25], [0.5, 1.0]]]]
    """

    def __init__(self, settings: ProbeSettings) -> None:
        self.settings = settings
        self.size = settings.probe_size  # `native` where images of the size that is asked for cannot be used
        self._layer: str | None = None
        self._classes: int | None = None

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> str:
        """Find the target layer and check the size of its maps, so that a mistake shows before any training.

        A network that cannot run on images of `probe_size` is shown images of their own size, and if its last maps are
        too small there, an earlier layer is mapped.

        Args:
            network: the architecture.
            test_data: the server's test data, batches (images, labels).

        Returns:
            The layer's dotted name.

        Raises:
            ValueError: if the test data hold no usable image, the network cannot run on them, returns no logits or has
                no maps, the layer does not exist, or its maps are smaller than 4 x 4.
        """
        network = Classifier(network, self.settings.logits)
        with hinting(network):
            count, seed = self.settings.probe_images, self.settings.seed
            self.size = self._size_for(network, draw_probe(network, test_data, count, seed, number=0)[0])
            images, _ = self.draw(network, test_data, number=0)  # now that the number of classes is known
            layer, maps = self._look(network, images)
            alone = self.size != "native" and max(maps.shape[-2:]) == 1  # one position, whatever the size
            chosen = self.settings.target_layer == "auto" and (alone or self.size != self.settings.probe_size)
            if chosen and shortest_side(network, maps) < SMALLEST_MAP:
                layer, maps = self._look(network, images, SMALLEST_MAP)
        height, width = maps.shape[-2:]
        if shortest_side(network, maps) < SMALLEST_MAP:
            raise ValueError(
                f"The heat maps of layer {layer!r} are {height} x {width} on images of {images.shape[-2]} x "
                f"{images.shape[-1]} pixels; below {SMALLEST_MAP} x {SMALLEST_MAP} they hold hardly any information (a "
                "1 x 1 map scaled to [0, 1] is always zero). Raise probe_size, or name an earlier target_layer."
            )
        self._layer = layer
        return layer

    def _look(self, network: nn.Module, images: Tensor, smallest: int = 1) -> tuple[str, Tensor]:
        """Return the layer, and its maps of one image."""
        layer = find_target_layer(network, images, self.settings.target_layer, smallest)
        return layer, grad_cam(network, [network.state_dict()], images[:1], layer)

    def _size_for(self, network: Classifier, images: Tensor) -> int | Literal["native"]:
        """Return `probe_size`, or `native` if the network cannot run on images of that size; count the classes."""
        size = self.settings.probe_size
        if size != "native":
            why = f"images of {' x '.join(map(str, images.shape[1:]))} numbers cannot be resized"
            try:
                if resizable(network, images):
                    self._classes = count_classes(network, resize(images, size))
                    return size
            except ValueError as error:
                why = str(error)
        self._classes = count_classes(network, images)
        if size != "native":
            log.warning("probe_size %s: heat maps are made of images in their own size, since %s", size, why)
        return "native"

    def draw(self, network: nn.Module, test_data: Iterable[Any], number: int) -> tuple[Tensor, Tensor]:
        """Return the probe images of a round, resized as `prepare` found out, and their labels.

        Args:
            network: the images get the type and the device of its weights.
            test_data: the server's test data, batches (images, labels).
            number: the round.

        Returns:
            (images, channels, height, width), and (images,).

        Raises:
            ValueError: if the test data hold no usable image.
        """
        count, seed, labeled = self.settings.probe_images, self.settings.seed, self.settings.target_class == "label"
        images, labels = draw_probe(network, test_data, count, seed, number, self._classes, labeled)
        return (images if self.size == "native" else resize(images, self.size)), labels

    def maps(self, round: Round) -> Tensor:
        """Return the heat maps of a round's uploads, in the range and the size that the settings ask for.

        Args:
            round: the uploads, the network and the test data.

        Returns:
            (clients, images, height, width), on the network's device; NaN or infinity where the arithmetic overflows.

        Raises:
            ValueError: if `draw` raises it, or on the first call if `prepare` does.
        """
        layer = self._layer or self.prepare(round.network, round.test_data)
        network = Classifier(round.network, self.settings.logits)
        images, labels = self.draw(network, round.test_data, round.number)
        target = labels if self.settings.target_class == "label" else None
        return self.scale(self.raw_maps(network, round.uploads, images, layer, target))

    def raw_maps(
        self, network: nn.Module, uploads: Sequence[Upload], images: Tensor, layer: str, labels: Tensor | None
    ) -> Tensor:
        """Return the maps of uploads by the method that the settings ask for, before any scaling.

        Args:
            network: the architecture.
            uploads: state dicts.
            images: (images, channels, height, width).
            layer: dotted name of the target layer.
            labels: (images,), the class that is explained; None: each upload's own answer.

        Returns:
            (clients, images, height, width).
        """
        method = {"gradcam": grad_cam, "layercam": layer_cam}[self.settings.map_method]
        return method(network, uploads, images, layer, labels)

    def scale(self, maps: Tensor) -> Tensor:
        """Return maps in the range and the size that the settings ask for.

        Args:
            maps: (clients, images, height, width).
        """
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
    """Return some of the server's test images in their own size, and their labels, drawn anew each round.

    Args:
        network: the images get the type and the device of its weights.
        test_data: the server's test data, batches (images, labels).
        count: the number of images.
        seed: the defense's seed, which clients must not know.
        number: the round.
        classes: the number of classes of the network; None: not known.
        labeled: if True, images without a label among these classes are left out.

    Returns:
        (images, channels, height, width), and the labels, (images,), -1 for an image without one.

    Raises:
        ValueError: if the test data hold no usable image.

    Example:
        >>> import torch
        >>> test_data = [(torch.rand(8, 1, 2, 2), torch.ones(8, dtype=torch.long))]
        >>> images, labels = draw_probe(nn.Linear(4, 2), test_data, count=3, seed=0, number=1)
        >>> images.shape, labels.tolist()
        (torch.Size([3, 1, 2, 2]), [1, 1, 1])
    """
    try:
        images, labels = draw_images(
            test_data, count, seeded_generator(seed, 0, number), classes=classes, labeled=labeled
        )
    except ValueError as error:
        raise ValueError(f"The probe images are drawn from the server's test data. {error}") from None
    like = next(network.parameters())
    return images.to(like), labels.to(like.device)
