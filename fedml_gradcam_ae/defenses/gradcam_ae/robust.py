"""The `robust` profile: scores by heat maps, BatchNorm's statistics, outputs and single tensors; see docs/robust.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.gradcam_ae.class_probe import LARGEST_MAP, ClassProbe, ProbeImages
from fedml_gradcam_ae.defenses.gradcam_ae.evidence import Evidence, kinds_of
from fedml_gradcam_ae.defenses.gradcam_ae.knowledge import discriminations_of
from fedml_gradcam_ae.defenses.gradcam_ae.observed import FEWEST, Maps, Models, Observed
from fedml_gradcam_ae.defenses.gradcam_ae.relations import directions_of
from fedml_gradcam_ae.defenses.gradcam_ae.scored import Scored
from fedml_gradcam_ae.defenses.gradcam_ae.settings import GradCAMAESettings
from fedml_gradcam_ae.heatmaps import maps_and_outputs
from fedml_gradcam_ae.networks.batchnorm import statistics_of
from fedml_gradcam_ae.networks.outputs import Classifier


class RobustProfile:
    """The scores of the `robust` profile.

    State: how well each client's updates agreed with the others' in the last rounds.

    Args:
        settings: the settings of the defense.
    """

    def __init__(self, settings: GradCAMAESettings) -> None:
        self.settings = settings
        self.probe = ClassProbe(settings)
        self.evidence = Evidence(kinds_of(settings))
        self._layer: str | None = None

    def protects(self, clients: int) -> bool:
        """Return whether there are enough clients to compare with."""
        return clients >= FEWEST

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Find the target layer and the image size; see `ClassProbe.prepare`."""
        self._layer = self.probe.prepare(network, test_data)

    def score(self, round: Round) -> Scored:
        """Return the scores by all kinds of evidence for a round with at least one upload."""
        start = perf_counter()
        if self._layer is None:
            self.prepare(round.network, round.test_data)
        given, round = round, replace(round, network=Classifier(round.network, self.settings.logits))
        probe = self.probe.draw(round.network, round.test_data, round.number)
        large, outputs = self._maps(round, probe)
        statistics = statistics_of(round.network, round.global_model, round.uploads, probe.native)
        known = discriminations_of(round, outputs.shape[-1], self.settings.seed)
        mapped = perf_counter()

        judged, broken = large.finite, not large.comparable
        maps = large.uploads
        shown = torch.full(
            (len(judged), *maps.shape[1:2], *maps.shape[3:]), math.nan, dtype=torch.float32, device=maps.device
        )
        reconstructions = torch.full_like(shown, math.nan)
        scores, why = torch.full((len(judged),), math.inf, dtype=torch.float32), [""] * len(judged)
        positions = judged.nonzero()[:, 0].tolist()
        if positions and not broken:
            directions = directions_of(given, self.settings.seed) if self.settings.relation_margin else None
            observed = Observed(
                round.number,
                [round.client_ids[position] for position in positions],
                [round.samples[position] for position in positions],
                large.only(judged),
                None if statistics is None else statistics.only(judged),
                Models(outputs, given.steps, judged.cpu(), directions, known),
            )
            found = self.evidence.judge(observed)
            scores[judged.cpu()] = found.scores.float()
            own = torch.searchsorted(probe.classes, probe.labels)
            shown[judged] = _of_class(found.shown.deviations, own).to(shown)
            reconstructions[judged] = _of_class(found.shown.reconstructions, own).to(shown)
            for position, value, reason in zip(positions, found.scores.tolist(), found.reasons, strict=True):
                why[position] = reason if value > 1 else ""
        elif positions:  # the global model's own maps are not finite, so that no upload can be compared with them
            scores[judged.cpu()] = 0.0
        if 2 * len(positions) < len(judged):  # most models overflow in eval mode, so that it says nothing of a client
            scores[:] = 0.0
        seconds = {"heat_maps": mapped - start, "evidence": perf_counter() - mapped}
        return Scored(scores.tolist(), 1.0, shown, reconstructions, seconds, why)

    def _maps(self, round: Round, probe: ProbeImages) -> tuple[Maps, Tensor]:
        """Return the maps, and the class scores (1 + clients, images, classes) with the global model's first."""
        assert self._layer is not None
        models = [round.global_model, *round.uploads]
        maps, outputs = maps_and_outputs(round.network, models, probe.large, self._layer, probe.classes)
        height, width = (min(side, LARGEST_MAP) for side in maps.shape[-2:])
        if (height, width) != maps.shape[-2:]:
            pooled = adaptive_avg_pool2d(maps.flatten(0, 1), (height, width))
            maps = pooled.reshape(*maps.shape[:3], height, width)
        return Maps(maps[1:], maps[0]), outputs

    def state(self) -> dict[str, Any]:
        """Return the state to save; see `Evidence.state`."""
        return self.evidence.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.evidence.restore(state)

    def forget(self, client: ClientId) -> None:
        """Forget a client's past scores; see `Evidence.forget`."""
        self.evidence.forget(client)


def _of_class(maps: Tensor, labels: Tensor) -> Tensor:
    """Return the maps of one class of each image.

    Args:
        maps: (clients, images, classes, height, width).
        labels: (images,), int64, positions among the classes.

    Returns:
        (clients, images, height, width).
    """
    return maps[:, torch.arange(len(labels), device=labels.device), labels]
