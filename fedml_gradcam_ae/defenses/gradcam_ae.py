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
from fedml_gradcam_ae.heatmaps import find_target_layer, grad_cam, min_max, resize
from fedml_gradcam_ae.images import draw_images, seeded_generator
from fedml_gradcam_ae.registry import register_defense
from fedml_gradcam_ae.settings import DefenseSettings
from fedml_gradcam_ae.votes import Votes

SMALLEST_MAP = 4


@register_defense("gradcam_ae")
class GradCAMAE:
    """Judge uploads by the heat maps that they make of the server's test images.

    State (flags of the last rounds, permanent removals) is keyed by client id; see `state` and `restore`.
    """

    class Settings(DefenseSettings):
        """The `paper` profile's values are the defaults; what the paper leaves open follows the authors' code."""

        profile: Literal["paper"] = Field(
            default="paper", description="a set of defaults for all other keys: `paper`, as published"
        )
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
        seed: int = Field(default=0, ge=0, description="draws the probe and the autoencoder's initial weights")
        record_dir: str | None = Field(
            default=None, description="folder for the JSON lines and pictures of each round; null: none"
        )

        @model_validator(mode="after")
        def _check_sizes(self) -> GradCAMAE.Settings:
            for name, size, smallest in (("probe_size", self.probe_size, 1), ("map_size", self.map_size, SMALLEST_MAP)):
                if isinstance(size, int) and size < smallest:
                    raise ValueError(f"{name} must be at least {smallest} pixels or `native`, found {size}")
            if self.vote_threshold > self.vote_every:
                raise ValueError(
                    f"vote_threshold must be at most vote_every, since a vote counts flags over that many rounds, "
                    f"found {self.vote_threshold} of {self.vote_every}"
                )
            return self

    def __init__(self, settings: GradCAMAE.Settings) -> None:
        self.settings = settings
        self.votes = Votes(settings.vote_every, settings.vote_threshold, settings.permanent)
        self._layer: str | None = None

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Find the target layer and check the size of its maps, so that a mistake shows before any training.

        Raises:
            ValueError: if the test data are empty, the layer does not exist, or its maps are under 4 x 4.
        """
        images, labels = self._draw_probe(network, test_data, number=0)
        self._layer = find_target_layer(network, images, self.settings.target_layer)
        maps = grad_cam(network, [network.state_dict()], images[:1], self._layer, labels[:1])
        height, width = maps.shape[-2:]
        if min(height, width) < SMALLEST_MAP:
            raise ValueError(
                f"The heat maps of layer {self._layer!r} are {height} x {width} on images of {images.shape[-2]} x "
                f"{images.shape[-1]} pixels; under {SMALLEST_MAP} x {SMALLEST_MAP} they say next to nothing (a 1 x 1 "
                "map scaled to [0, 1] is always zero). Raise probe_size, or name an earlier target_layer."
            )

    def judge(self, round: Round) -> Verdict:
        """Heat maps, autoencoder, threshold, flags and vote for one round; see the module's source."""
        start = perf_counter()
        if self._layer is None:
            self.prepare(round.network, round.test_data)
        present = [i for i, client in enumerate(round.client_ids) if client not in self.votes.removed]
        maps = self._heat_maps(round.only(present), len(round.uploads), present)
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

    def _draw_probe(self, network: nn.Module, test_data: Iterable[Any], number: int) -> tuple[Tensor, Tensor]:
        try:
            images, labels = draw_images(
                test_data, self.settings.probe_images, seeded_generator(self.settings.seed, 0, number)
            )
        except ValueError as error:
            raise ValueError(f"gradcam_ae draws its probe images from the server's test data. {error}") from None
        device = next(network.parameters()).device
        images, labels = images.to(device), labels.to(device)
        size = self.settings.probe_size
        return (images if size == "native" else resize(images, size)), labels

    def _heat_maps(self, present: Round, clients: int, positions: list[int]) -> Tensor:
        """(clients, images, height, width); NaN for the clients that are not present."""
        assert self._layer is not None
        images, labels = self._draw_probe(present.network, present.test_data, present.number)
        if not positions:
            return torch.full((clients, len(images), SMALLEST_MAP, SMALLEST_MAP), math.nan)
        target = labels if self.settings.target_class == "label" else None
        found = grad_cam(present.network, present.uploads, images, self._layer, target)
        if self.settings.map_scaling == "min_max":
            found = min_max(found)
        if self.settings.map_size != "native":
            found = resize(found, self.settings.map_size)
        maps = torch.full((clients, *found.shape[1:]), math.nan, device=found.device)
        maps[positions] = found
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
