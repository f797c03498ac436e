"""FLAME: the densest majority of models by angle, clipped to the median length, under a little noise.

Source: Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022, arXiv 2101.02281,
Algorithm 1. Some implementations compare the angles of updates instead of models, count BatchNorm's statistics in, or
scale the noise by each layer's own deviation.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.tied import with_one_value
from fedml_gradcam_ae.contract.updates import Updates, flatten
from fedml_gradcam_ae.defenses.shared.clipped_mean import clipped_mean
from fedml_gradcam_ae.maths.cosine import cosine_matrix
from fedml_gradcam_ae.networks.images import seeded_generator


@register_defense("flame")
class FLAME(Defense):
    """Keep the one cluster of more than half of the models, clip to the median length, average, and add noise.

    HDBSCAN on cosine distances, with at least K // 2 + 1 models in a cluster, leaves one cluster and outliers; it
    sheds models until hardly more than half are left, attackers or not. The kept updates are clipped to the median
    length S of all and averaged, every client alike; then the weights get noise N(0, (lambda S)^2).
    """

    class Settings(DefenseSettings):
        """The defaults are the paper's, for images."""

        angles: Literal["models", "updates"] = Field(
            default="models", description="whose angles are compared: the paper's are the models' own"
        )
        noise: float = Field(default=0.001, ge=0, description="lambda: the noise's deviation (in median lengths)")
        seed: int = Field(default=0, ge=0, description="draws the noise")

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """Cluster, clip, average, add noise."""
        updates = round.updates
        gram = model_gram(updates) if self.settings.angles == "models" else updates.gram
        distances = 1 - cosine_matrix(gram)
        excluded = outside_majority(distances)
        answer: dict[str, Any] = {"weights": [0.0] * len(excluded)}
        if not all(excluded):
            median = float(np.median(updates.squared_norms.sqrt().cpu().numpy()))
            model = clipped_mean(round, excluded, median)
            generator = seeded_generator(self.settings.seed, round.number)
            answer = {"model": with_noise(model, round, self.settings.noise * median, generator)}
        kept = torch.tensor([not out for out in excluded], device=distances.device)
        scores = distances[:, kept if not all(excluded) else ~kept].mean(1)
        return Verdict(
            flagged=excluded,
            excluded=excluded,
            scores=scores.tolist(),
            **answer,
        )


def model_gram(updates: Updates) -> Tensor:
    """<w_i, w_j>, (clients, clients), from the updates' own: w_i = w_g + u_i."""
    along = updates.dot(updates.center)
    square = flatten(updates.center, updates.names).double().square().sum()
    return updates.gram + along[:, None] + along + square


def outside_majority(distances: Tensor) -> list[bool]:
    """Who is not in HDBSCAN's single cluster of more than half; nobody where there is one client.

    Args:
        distances: (clients, clients), symmetric.
    """
    from sklearn.cluster import HDBSCAN

    clients = len(distances)
    if clients == 1:
        return [False]
    clustering = HDBSCAN(
        metric="precomputed",
        min_cluster_size=clients // 2 + 1,
        min_samples=1,
        allow_single_cluster=True,
        copy=True,
    )
    labels = clustering.fit(((distances + distances.T) / 2).cpu().numpy()).labels_
    return (labels != 0).tolist()  # type: ignore[no-any-return]


def with_noise(
    model: dict[str, Tensor], round: Round, deviation: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """The model with N(0, deviation^2) on the trainable parameters."""

    def noisy(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        largest = torch.finfo(tensor.dtype).max
        return (tensor + deviation * noise.to(tensor.device)).clamp(-largest, largest)

    names = set(round.parameters)
    noised = {name: noisy(tensor) if name in names else tensor for name, tensor in model.items()}
    return with_one_value(noised, round.tied)
