"""GradCAM-Krum: Krum on heat maps instead of weights, the GradCAM-AE paper's own ablation.

Source: Zheng et al., "GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated Learning", ACM TOPS 2025.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.defenses.shared.krum_scores import KrumSettings, krum_scores
from fedml_gradcam_ae.heatmaps import Probe, ProbeSettings


@register_defense("gradcam_krum")
class GradCAMKrum(Defense):
    """The one upload with the smallest Krum score of its heat maps; the f with the largest scores are flagged.

    All other uploads are left out of the aggregate, as in Krum, but only the f with the largest scores are flagged.

    Example:
        The scores are Krum's, of flattened heat maps of shape (clients, images, height, width).

        >>> import torch
        >>> from fedml_gradcam_ae.defenses.shared.krum_scores import krum_scores
        >>> maps = torch.zeros(5, 1, 2, 2)
        >>> maps[:, 0, 0, 0] = torch.tensor([0.1, 0.2, 0.3, 0.5, 0.9])  # where the models look
        >>> rows = maps.flatten(1)
        >>> krum_scores(torch.cdist(rows, rows).square(), malicious=1)
        tensor([0.0500, 0.0200, 0.0500, 0.1300, 0.5200])
    """

    class Settings(ProbeSettings, KrumSettings):
        """The settings of the probe images and heat maps, scaled as in the authors' code, and f."""

    settings: Settings
    not_composed = "it keeps a single upload"

    def __init__(self, settings: GradCAMKrum.Settings | None = None) -> None:
        super().__init__(settings)
        self.probe = Probe(self.settings)

    @override
    def protects(self, clients: int) -> bool:
        """Return whether a client's maps have honest neighbors at all; see `Krum.protects`."""
        return clients >= 3 and self.settings.allows(clients)

    @override
    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Prepare the probe, so that errors show before any training; see `Probe.prepare`."""
        self.probe.prepare(network, test_data)

    @override
    def judge(self, round: Round) -> Verdict:
        """Give the client with the smallest score all the weight.

        Uploads whose maps hold NaN or infinity have an infinite score and are flagged.

        Raises:
            TooFewUploads: if f is above 0 and there are fewer than 2f + 3 uploads.
        """
        start = perf_counter()
        clients = len(round.uploads)
        malicious = self.settings.faced(clients, len(round.rejected))
        maps = self.probe.maps(round)
        mapped = perf_counter()
        usable = maps.flatten(1).isfinite().all(dim=1).tolist()
        scores = torch.full((clients,), math.inf, dtype=torch.float64)
        if any(usable):
            flat = maps[usable].flatten(1).double()
            # Clients without usable maps count among the f, like clients without a usable upload.
            left = self.settings.faced(len(flat), len(round.rejected) + clients - len(flat))
            scores[torch.tensor(usable)] = krum_scores(_squared_distances(flat), left).cpu()
        best = int(scores.argmin())
        worst = set(scores.sort(descending=True, stable=True).indices[:malicious].tolist()) - {best}
        flagged = [position in worst or not usable[position] for position in range(clients)]
        out = [position != best or not usable[position] for position in range(clients)]
        return Verdict(
            flagged=flagged,
            excluded=out,
            weights=[0.0 if excluded else 1.0 for excluded in out],
            scores=scores.tolist(),
            seconds={"heat_maps": mapped - start},
            reasons={
                client: "its heat maps hold NaN or infinity"
                for client, fine in zip(round.client_ids, usable, strict=True)
                if not fine
            },
        )


def _squared_distances(rows: Tensor) -> Tensor:
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
