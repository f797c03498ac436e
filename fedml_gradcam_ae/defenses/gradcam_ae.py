"""GradCAM-AE: uploads whose heat maps an autoencoder reconstructs badly are left out.

Source: Zheng et al., "GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated Learning",
ACM TOPS 2025, section 5. docs/how-it-works.md goes through the equations and their errata.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from time import perf_counter
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fedml_gradcam_ae.autoencoder import Activation, fit_autoencoder
from fedml_gradcam_ae.detection import error_threshold, flag, reconstruction_error
from fedml_gradcam_ae.federation import ClientId, Round, Verdict, sample_weights
from fedml_gradcam_ae.heatmaps import SMALLEST_MAP, Probe, ProbeSettings
from fedml_gradcam_ae.images import seeded_generator
from fedml_gradcam_ae.registry import register_defense
from fedml_gradcam_ae.votes import Votes


@register_defense("gradcam_ae")
class GradCAMAE:
    """Judge uploads by the heat maps that they make of the server's test images.

    State (flags of the last rounds, permanent removals) is keyed by client id; see `state` and `restore`.
    """

    class Settings(ProbeSettings):
        """The `paper` profile's values are the defaults; what the paper leaves open follows the authors' code."""

        profile: Literal["paper"] = Field(
            default="paper", description="a set of defaults for all other keys: `paper`, as published"
        )
        hidden_size: int = Field(default=128, ge=1, description="width of the autoencoder's hidden layer")
        epochs: int = Field(default=200, ge=1, description="training steps of the autoencoder each round")
        learning_rate: float = Field(default=1e-3, gt=0, description="Adam's, for the autoencoder")
        weight_decay: float = Field(default=1e-5, ge=0, description="Adam's L2 penalty, for the autoencoder")
        output_activation: Activation = Field(default="sigmoid", description="the autoencoder's last activation")
        reconstruction_error: Literal["absolute", "squared"] = Field(
            default="absolute", description="`absolute` as in (14); `squared` as in the authors' code"
        )
        alpha: float = Field(
            default=1.0, ge=0, description="threshold = mean + alpha * standard deviation of the errors"
        )
        vote_every: int = Field(default=3, ge=1, description="xi: every so many rounds the vote decides (rounds)")
        vote_threshold: int = Field(default=2, ge=1, description="epsilon: flags that a vote needs (rounds)")
        permanent: bool = Field(default=False, description="whether a client that is voted out never comes back")
        record_dir: str | None = Field(
            default=None, description="folder for the JSON lines and pictures of each round; null: none"
        )

        @model_validator(mode="after")
        def _check_vote(self) -> GradCAMAE.Settings:
            if self.vote_threshold > self.vote_every:
                raise ValueError(
                    f"vote_threshold must be at most vote_every, since a vote counts flags over that many rounds, "
                    f"found {self.vote_threshold} of {self.vote_every}"
                )
            return self

    def __init__(self, settings: GradCAMAE.Settings) -> None:
        self.settings = settings
        self.votes = Votes(settings.vote_every, settings.vote_threshold, settings.permanent)
        self.probe = Probe(settings)

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """See `Probe.prepare`."""
        self.probe.prepare(network, test_data)

    def judge(self, round: Round) -> Verdict:
        """Heat maps, autoencoder, threshold, flags and vote for one round; see the module's source."""
        start = perf_counter()
        present = [i for i, client in enumerate(round.client_ids) if client not in self.votes.removed]
        maps = self._heat_maps(round, present)
        mapped = perf_counter()

        judged = [i for i in present if bool(torch.isfinite(maps[i]).all())]
        scores, threshold, reconstructions = self._score(maps, judged, round.number)
        scored = perf_counter()

        flagged = flag(scores, threshold)
        suspects = {client for client, bad in zip(round.client_ids, flagged, strict=True) if bad}
        # A client whose upload was unusable has earned a flag as well.
        out = self.votes.decide(round.number, suspects | set(round.rejected))
        for position in set(present) - set(judged):  # no vote can bring back an upload without usable maps
            out[round.client_ids[position]] = "its heat maps hold NaN or infinity"
        excluded = [client in out for client in round.client_ids]
        return Verdict(
            flagged=flagged,
            excluded=excluded,
            weights=sample_weights(round.samples, excluded),
            scores=scores,
            threshold=threshold,
            seconds={
                "heat_maps": mapped - start,
                "autoencoder": scored - mapped,
                "total": perf_counter() - start,
            },
            evidence={"heat_maps": maps.cpu(), "reconstructions": reconstructions.cpu()},
            reasons={client: reason for client in round.client_ids if (reason := out.get(client)) is not None},
        )

    def state(self) -> dict[str, Any]:
        """What must outlive the process: flags by round and permanent removals."""
        return self.votes.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.votes.restore(state)

    def release(self, client: ClientId) -> None:
        """Judge a client again that was voted out for good."""
        self.votes.release(client)

    def _heat_maps(self, round: Round, present: list[int]) -> Tensor:
        """(clients, images, height, width); NaN for the clients that are not present."""
        if not present:
            return torch.full((len(round.uploads), 1, SMALLEST_MAP, SMALLEST_MAP), math.nan)
        found = self.probe.maps(round.only(present))
        maps = torch.full((len(round.uploads), *found.shape[1:]), math.nan, device=found.device)
        maps[present] = found
        return maps

    def _score(self, maps: Tensor, judged: list[int], number: int) -> tuple[list[float], float, Tensor]:
        """Reconstruction errors (infinite without usable maps), their threshold, and the reconstructions."""
        scores = [math.inf] * len(maps)
        reconstructions = torch.full_like(maps, math.nan)
        if not judged:
            return scores, 0.0, reconstructions
        settings = self.settings
        usable = maps[judged]
        flat = usable.flatten(2).flatten(0, 1)
        model = fit_autoencoder(
            flat,
            hidden=settings.hidden_size,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            output=settings.output_activation,
            generator=seeded_generator(settings.seed, 1, number),
        )
        reconstructions[judged] = model(flat).view_as(usable)
        errors = reconstruction_error(usable, reconstructions[judged], settings.reconstruction_error)
        for position, error in zip(judged, errors.tolist(), strict=True):
            scores[position] = error
        return scores, error_threshold(errors, settings.alpha), reconstructions
