"""The `robust` profile: heat maps of all classes and BatchNorm's statistics, judged as docs/robust.md explains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.batchnorm import statistics_of
from fedml_gradcam_ae.evidence import Evidence, Maps, Rules
from fedml_gradcam_ae.federation import ClientId, Round
from fedml_gradcam_ae.heatmaps import class_maps
from fedml_gradcam_ae.outputs import Classifier
from fedml_gradcam_ae.profiles.class_probe import ClassProbe
from fedml_gradcam_ae.profiles.scored import Scored

if TYPE_CHECKING:
    from fedml_gradcam_ae.defenses.gradcam_ae import GradCAMAE

WHY = {
    "copies": "its heat maps are nearly another client's",
    "means": "the means that its layers produce are nearly another client's",
    "errors": "an autoencoder trained on other clients' heat maps does not know its own",
    "disagreement": "its heat maps changed against everybody's direction",
    "statistics": "the means that its BatchNorm layers hold did not move with its weights",
}


class RobustProfile:
    """Remembers in which direction each client's heat maps changed, if the network has no BatchNorm."""

    def __init__(self, settings: GradCAMAE.Settings) -> None:
        self.settings = settings
        self.probe = ClassProbe(settings)
        self.evidence = Evidence(Rules.of(settings))
        self._layer: str | None = None

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """See `ClassProbe.prepare`."""
        self._layer = self.probe.prepare(network, test_data)

    def score(self, round: Round) -> Scored:
        """Evidence of all kinds for a round with at least one upload."""
        start = perf_counter()
        if self._layer is None:
            self.prepare(round.network, round.test_data)
        round = replace(round, network=Classifier(round.network, self.settings.logits))
        probe = self.probe.draw(round.network, round.test_data, round.number)
        large = self._maps(round, probe.large)
        statistics = statistics_of(round.network, round.global_model, round.uploads, probe.native)
        native = self._maps(round, probe.native) if statistics is None else statistics
        mapped = perf_counter()

        judged, broken = large.finite, not large.comparable
        if isinstance(native, Maps):
            judged, broken = judged & native.finite, broken or not native.comparable
        clients = [client for client, good in zip(round.client_ids, judged.tolist(), strict=True) if good]
        maps = large.uploads
        shown = torch.full(
            (len(judged), *maps.shape[1:2], *maps.shape[3:]), math.nan, dtype=torch.float32, device=maps.device
        )
        reconstructions = torch.full_like(shown, math.nan)
        scores, why = torch.full((len(judged),), math.inf, dtype=torch.float32), [""] * len(judged)
        if clients and not broken:
            samples = [count for count, good in zip(round.samples, judged.tolist(), strict=True) if good]
            found = self.evidence.judge(round.number, clients, large.only(judged), native.only(judged), samples)
            scores[judged.cpu()] = found.scores.float().cpu()
            shown[judged] = _of_class(found.deviations, probe.labels).to(shown)
            reconstructions[judged] = _of_class(found.reconstructions, probe.labels).to(shown)
            for position, reason in zip(judged.nonzero()[:, 0].tolist(), _reasons(found.parts), strict=True):
                why[position] = reason
        elif clients:  # the global model itself is broken: there is nothing to compare with
            scores[judged.cpu()] = 0.0
        seconds = {"heat_maps": mapped - start, "evidence": perf_counter() - mapped}
        return Scored(scores.tolist(), 1.0, shown, reconstructions, seconds, why)

    def _maps(self, round: Round, images: Tensor) -> Maps:
        assert self._layer is not None
        maps = class_maps(round.network, [round.global_model, *round.uploads], images, self._layer)
        return Maps(maps[1:], maps[0])

    def state(self) -> dict[str, Any]:
        """See `Evidence.state`."""
        return self.evidence.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Evidence.restore`."""
        self.evidence.restore(state)

    def forget(self, client: ClientId) -> None:
        """See `Evidence.forget`."""
        self.evidence.forget(client)


def _of_class(maps: Tensor, labels: Tensor) -> Tensor:
    """(clients, images, height, width): of (clients, images, classes, height, width), each image's own class."""
    return maps[:, torch.arange(len(labels), device=labels.device), labels]


def _reasons(parts: Mapping[str, Tensor]) -> Sequence[str]:
    """For each client the strongest kind of evidence above 1, in words; maps before means, since one can see them."""
    kinds = list(parts)
    shown = [parts[kind].masked_fill(parts["copies"] > 1, 0) if kind == "means" else parts[kind] for kind in kinds]
    values, which = torch.stack(shown).max(dim=0)
    return [WHY[kinds[k]] if value > 1 else "" for value, k in zip(values.tolist(), which.tolist(), strict=True)]
