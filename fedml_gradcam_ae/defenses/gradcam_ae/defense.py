"""GradCAM-AE: leave out uploads whose heat maps an autoencoder reconstructs badly.

Source: Zheng et al., "GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated Learning",
ACM TOPS 2025, section 5. docs/how-it-works.md explains the equations and their errata, docs/robust.md the `robust`
profile, which replaces some of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.gradcam_ae.paper import PaperProfile
from fedml_gradcam_ae.defenses.gradcam_ae.robust import RobustProfile
from fedml_gradcam_ae.defenses.gradcam_ae.scored import Scored
from fedml_gradcam_ae.defenses.gradcam_ae.settings import GradCAMAESettings
from fedml_gradcam_ae.defenses.gradcam_ae.threshold import flag
from fedml_gradcam_ae.defenses.gradcam_ae.votes import Votes

NO_CLIENT = Scored([], 0.0, torch.zeros(0, 1, 1, 1), torch.zeros(0, 1, 1, 1), {})
PROFILES: dict[str, Any] = {"paper": PaperProfile, "robust": RobustProfile}


@register_defense("gradcam_ae")
class GradCAMAE(Defense):
    """The average without clients whose heat maps of the server's test images are suspicious, by a vote over rounds.

    The state (flags of the last rounds, permanent removals, directions) is keyed by client id; see `state` and
    `restore`.

    Example:
        The profile `paper`, from four clients' maps and reconstructions (clients, images, height, width) to the flags:

        >>> import torch
        >>> from fedml_gradcam_ae.defenses.gradcam_ae.threshold import error_threshold, flag, reconstruction_error
        >>> maps = torch.tensor([0.2, 0.3, 0.2, 0.9]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
        >>> errors = reconstruction_error(maps, torch.full((4, 1, 2, 2), 0.2))
        >>> errors
        tensor([0.0000, 0.1000, 0.0000, 0.7000])
        >>> threshold = error_threshold(errors, alpha=1.0)
        >>> f"{threshold:.2f}"
        '0.49'
        >>> flag(errors.tolist(), threshold)
        [False, False, False, True]
    """

    Settings = GradCAMAESettings

    settings: GradCAMAESettings
    remembers_clients = True

    def __init__(self, settings: GradCAMAESettings | None = None) -> None:
        super().__init__(settings)
        self.votes = Votes(self.settings.vote_every, self.settings.vote_threshold, self.settings.permanent)
        self.profile = PROFILES[self.settings.profile](self.settings)

    @override
    def protects(self, clients: int) -> bool:
        """Return whether the profile can tell one client from the others."""
        return super().protects(clients) and self.profile.protects(clients)

    @override
    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Find the target layer and check its maps, so that errors show before any training.

        Args:
            network: the architecture.
            test_data: the server's batches (images, labels).

        Raises:
            ValueError: if the test data are empty, the layer does not exist, or its maps are too small.
        """
        self.profile.prepare(network, test_data)

    @override
    def judge(self, round: Round) -> Verdict:
        """Judge one round by heat maps, autoencoder, threshold, flags and vote; see the module's source.

        Clients that were removed for good, and clients whose maps hold NaN or infinity, have an infinite score.
        """
        present = [i for i, client in enumerate(round.client_ids) if client not in self.votes.removed]
        found = self.score(round.only(present)) if present else NO_CLIENT
        scores = _spread(found.scores, present, len(round.client_ids))
        flagged = flag(scores, found.threshold)
        suspects = {client for client, bad in zip(round.client_ids, flagged, strict=True) if bad}
        # An unusable upload counts as a flag in the vote.
        out = self.votes.decide(round.number, suspects | set(round.rejected))
        for position, score, why in zip(present, found.scores, found.why or [""] * len(present), strict=True):
            client = round.client_ids[position]
            if score == math.inf:  # an upload without usable maps is left out whatever the vote says
                out[client] = "its heat maps hold NaN or infinity"
            elif why and flagged[position] and client in out:
                out[client] = out[client] or why
        excluded = [client in out for client in round.client_ids]
        return Verdict(
            flagged=flagged,
            excluded=excluded,
            weights=sample_weights(round.samples, excluded),
            scores=scores,
            threshold=found.threshold,
            seconds=found.seconds,
            evidence={
                "heat_maps": _spread_maps(found.heat_maps, present, len(round.client_ids)),
                "reconstructions": _spread_maps(found.reconstructions, present, len(round.client_ids)),
            },
            reasons={client: reason for client in round.client_ids if (reason := out.get(client)) is not None},
        )

    def score(self, round: Round) -> Scored:
        """Return the profile's scores of a round with at least one upload, without permanently removed clients."""
        found: Scored = self.profile.score(round)
        return found

    @override
    def state(self) -> dict[str, Any]:
        """Return the state to save: flags by round, permanent removals and the profile's state."""
        return {**self.votes.state(), **self.profile.state()}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.votes.restore(state)
        self.profile.restore(state)

    @override
    def release(self, client: ClientId) -> None:
        """Take back a client's permanent removal and forget its past flags and scores."""
        self.votes.release(client)
        self.profile.forget(client)


def _spread(values: Sequence[float], present: list[int], clients: int) -> list[float]:
    """Return one value per client: those given at the positions `present`, infinity elsewhere."""
    spread = [math.inf] * clients
    for position, value in zip(present, values, strict=True):
        spread[position] = value
    return spread


def _spread_maps(maps: Tensor, present: list[int], clients: int) -> Tensor:
    """Return one map per client, on the CPU: those given at the positions `present`, NaN elsewhere."""
    spread = torch.full((clients, *maps.shape[1:]), math.nan, dtype=torch.float32)
    spread[present] = maps.float().cpu()
    return spread
