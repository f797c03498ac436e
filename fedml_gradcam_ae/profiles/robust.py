"""The `robust` profile: signed heat maps of all classes, judged as docs/robust.md explains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.evidence import Evidence, Maps, Rules
from fedml_gradcam_ae.federation import ClientId, Round
from fedml_gradcam_ae.heatmaps import class_maps, draw_probe, find_target_layer, resize
from fedml_gradcam_ae.profiles.scored import Scored

if TYPE_CHECKING:
    from fedml_gradcam_ae.defenses.gradcam_ae import GradCAMAE

SMALLEST_MAP = 2  # positions a side: one position is no map
WHY = {
    "copies": "its heat maps are nearly another client's",
    "errors": "an autoencoder trained on other clients' heat maps does not know its own",
    "disagreement": "its heat maps changed against everybody's direction",
}


class RobustProfile:
    """Remembers in which direction each client's heat maps changed."""

    def __init__(self, settings: GradCAMAE.Settings) -> None:
        self.settings = settings
        self.evidence = Evidence(Rules.of(settings))
        self._layer_and_size: tuple[str, int] | None = None

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Find the target layer and the probe's size, so that a mistake shows before any training.

        Raises:
            ValueError: if the test data are empty, the layer does not exist, or its maps are under 2 x 2.
        """
        images, _ = self._draw(network, test_data, number=0)
        layer = find_target_layer(network, images, self.settings.target_layer)
        self._layer_and_size = layer, self._size(network, images[:1], layer)

    def score(self, round: Round) -> Scored:
        """Evidence of all three kinds for a round with at least one upload."""
        start = perf_counter()
        if self._layer_and_size is None:
            self.prepare(round.network, round.test_data)
        assert self._layer_and_size is not None
        layer, size = self._layer_and_size
        images, labels = self._draw(round.network, round.test_data, round.number)
        count = self.settings.probe_images
        models = [round.global_model, *round.uploads]
        large = class_maps(round.network, models, resize(images[:count], size), layer)
        native = class_maps(round.network, models, images[: self.settings.direction_images], layer)
        mapped = perf_counter()

        usable = torch.isfinite(large).flatten(1).all(dim=1) & torch.isfinite(native).flatten(1).all(dim=1)
        judged = usable[1:]
        clients = [client for client, good in zip(round.client_ids, judged.tolist(), strict=True) if good]
        shown = torch.full((len(judged), *large.shape[1:2], *large.shape[3:]), math.nan, device=large.device)
        reconstructions = torch.full_like(shown, math.nan)
        scores, why = torch.full((len(judged),), math.inf), [""] * len(judged)
        if bool(usable[0]) and clients:
            found = self.evidence.judge(
                round.number,
                clients,
                Maps(large[1:][judged], large[0]),
                Maps(native[1:][judged], native[0]),
            )
            scores[judged.cpu()] = found.scores.float().cpu()
            of_label = labels[: len(large[0])]
            shown[judged] = _of_class(found.deviations, of_label).to(shown)
            reconstructions[judged] = _of_class(found.reconstructions, of_label).to(shown)
            for position, reason in zip(judged.nonzero()[:, 0].tolist(), _reasons(found.parts), strict=True):
                why[position] = reason
        elif clients:  # the global model itself is broken: there is nothing to compare with
            scores[judged.cpu()] = 0.0
        seconds = {"heat_maps": mapped - start, "evidence": perf_counter() - mapped}
        return Scored(scores.tolist(), 1.0, shown, reconstructions, seconds, why)

    def state(self) -> dict[str, Any]:
        """See `Evidence.state`."""
        return self.evidence.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Evidence.restore`."""
        self.evidence.restore(state)

    def forget(self, client: ClientId) -> None:
        """See `Evidence.forget`."""
        self.evidence.forget(client)

    def _draw(self, network: nn.Module, test_data: Iterable[Any], number: int) -> tuple[Tensor, Tensor]:
        count = max(self.settings.probe_images, self.settings.direction_images)
        return draw_probe(network, test_data, count, self.settings.seed, number)

    def _size(self, network: nn.Module, image: Tensor, layer: str) -> int:
        """The pixels that a probe image is resized to."""
        asked, size = self.settings.probe_size, min(image.shape[-2:])
        if isinstance(asked, int):
            size = asked
        side = self._side(network, image, layer, size)
        while asked == "auto" and side < SMALLEST_MAP and size < 1024:
            size *= 2
            side = self._side(network, image, layer, size)
        if side < SMALLEST_MAP:
            raise ValueError(
                f"The heat maps of layer {layer!r} are {side} position wide on images of {size} x {size} pixels: the "
                f"robust profile needs {SMALLEST_MAP} x {SMALLEST_MAP}. Raise probe_size, or name an earlier "
                "target_layer."
            )
        return size

    @staticmethod
    def _side(network: nn.Module, image: Tensor, layer: str, size: int) -> int:
        return min(class_maps(network, [network.state_dict()], resize(image, size), layer).shape[-2:])


def _of_class(maps: Tensor, labels: Tensor) -> Tensor:
    """(clients, images, height, width): of (clients, images, classes, height, width), each image's own class."""
    return maps[:, torch.arange(len(labels), device=labels.device), labels]


def _reasons(parts: Mapping[str, Tensor]) -> Sequence[str]:
    """For each client the strongest kind of evidence above 1, in words."""
    kinds = list(parts)
    values, which = torch.stack([parts[kind] for kind in kinds]).max(dim=0)
    return [WHY[kinds[k]] if value > 1 else "" for value, k in zip(values.tolist(), which.tolist(), strict=True)]
