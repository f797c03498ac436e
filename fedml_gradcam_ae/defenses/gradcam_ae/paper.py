"""The `paper` profile: sections 5.1 to 5.3 as published, with an autoencoder trained on the maps that it scores.

Source: Zheng et al., "GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated Learning", ACM TOPS 2025.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from time import perf_counter
from typing import Any

import torch
from torch import nn

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.defenses.gradcam_ae.autoencoder import fit_autoencoder
from fedml_gradcam_ae.defenses.gradcam_ae.scored import Scored
from fedml_gradcam_ae.defenses.gradcam_ae.settings import GradCAMAESettings
from fedml_gradcam_ae.defenses.gradcam_ae.threshold import error_threshold, reconstruction_error
from fedml_gradcam_ae.heatmaps import Probe
from fedml_gradcam_ae.networks.images import seeded_generator


class PaperProfile:
    """The scores of the published defense; no state is kept between rounds.

    Args:
        settings: the settings of the defense.
    """

    def __init__(self, settings: GradCAMAESettings) -> None:
        self.settings = settings
        self.probe = Probe(settings)

    def protects(self, clients: int) -> bool:
        """Return whether one client of K can exceed mean + alpha std: only if 1 / K < 1 / (1 + alpha^2)."""
        return clients > 1 + self.settings.alpha**2

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Prepare the probe; see `Probe.prepare`."""
        self.probe.prepare(network, test_data)

    def score(self, round: Round) -> Scored:
        """Return the scores by equations (11) to (16) for a round with at least one upload."""
        start = perf_counter()
        settings = self.settings
        maps = self.probe.maps(round)
        mapped = perf_counter()
        judged = torch.isfinite(maps).flatten(1).all(dim=1)
        scores, threshold = torch.full((len(maps),), math.inf, dtype=torch.float64), 0.0
        reconstructions = torch.full_like(maps, math.nan)
        if bool(judged.any()):
            usable = maps[judged]
            flat = usable.flatten(2).flatten(0, 1)
            model = fit_autoencoder(
                flat,
                hidden=settings.hidden_size,
                epochs=settings.epochs,
                learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay,
                output=settings.output_activation,
                generator=seeded_generator(settings.seed, 1, round.number),
            )
            reconstructions[judged] = model(flat).view_as(usable)
            errors = reconstruction_error(usable, reconstructions[judged], settings.reconstruction_error)
            scores[judged.cpu()] = errors.double().cpu()
            threshold = error_threshold(errors, settings.alpha)
        seconds = {"heat_maps": mapped - start, "autoencoder": perf_counter() - mapped}
        return Scored(scores.tolist(), threshold, maps, reconstructions, seconds)

    def state(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing, since there is no state."""

    def forget(self, client: Any) -> None:
        """Do nothing, since there is no state."""
