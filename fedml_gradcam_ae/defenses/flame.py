"""FLAME: keep the majority cluster of models by cosine distance, clip updates to their median length and add noise.

Source: Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022, arXiv 2101.02281,
Algorithm 1. Some implementations compare the angles of updates instead of models, include BatchNorm's statistics, or
scale the noise by each layer's own standard deviation.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.updates import Updates, flatten
from fedml_gradcam_ae.defenses.shared.clipped_mean import clipped_mean
from fedml_gradcam_ae.defenses.shared.noise import with_noise
from fedml_gradcam_ae.maths.cosine import cosine_matrix
from fedml_gradcam_ae.maths.order_statistics import median
from fedml_gradcam_ae.networks.images import seeded_generator


@register_defense("flame")
class FLAME(Defense):
    """The clipped and noised mean of the one HDBSCAN cluster that holds more than half of the models.

    With K models, HDBSCAN on their cosine distances requires K // 2 + 1 models in a cluster, so that it finds one
    cluster at most; the models outside of it are left out. Often these are nearly half of the models, whether there are
    attackers or not. The updates of the kept models are clipped to the median length S of all updates and averaged
    without weights. Then Gaussian noise N(0, (lambda S)^2) is added to the trainable parameters. If there is no
    cluster, the global model stays.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.flame import FLAME
        >>> models = ([1.0, 0.9], [1.0, 1.1], [1.0, 1.0], [-1.0, 1.0])
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"weight": torch.tensor([model])} for model in models],
        ...     samples=[10.0] * 4,
        ...     global_model={"weight": torch.zeros(1, 2)},
        ...     network=torch.nn.Linear(2, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = FLAME(FLAME.Settings(noise=0.0)).judge(round)
        >>> verdict.excluded
        [False, False, False, True]
        >>> verdict.model  # the mean of the first three, the longest of them clipped
        {'weight': tensor([[0.9838, 0.9821]])}
    """

    class Settings(DefenseSettings):
        """The settings of FLAME; the defaults are the paper's for images."""

        angles: Literal["models", "updates"] = Field(
            default="models",
            description="vectors whose cosine distances are clustered: the models, as in the paper, or the updates",
        )
        noise: float = Field(
            default=0.001,
            ge=0,
            description="lambda, the standard deviation of the noise (in median lengths of an update)",
        )
        seed: int = Field(default=0, ge=0, description="seed of the noise")

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """Cluster the models, clip and average the kept updates, and add noise.

        The score is the mean cosine distance to the kept clients, or to all clients where none is kept.
        """
        updates = round.updates
        gram = model_gram(updates) if self.settings.angles == "models" else updates.gram
        distances = 1 - cosine_matrix(gram)
        excluded = outside_majority(distances)
        if all(excluded):
            no_weights = [0.0] * len(excluded)
            return Verdict(
                flagged=excluded, excluded=excluded, weights=no_weights, scores=distances.mean(dim=1).tolist()
            )
        limit = float(median(updates.squared_norms.sqrt()))
        generator = seeded_generator(self.settings.seed, round.number)
        model = clipped_mean(round, excluded, limit)
        model = with_noise(model, round.parameters, round.tied, self.settings.noise * limit, generator)
        kept = [client for client, out in enumerate(excluded) if not out]
        scores = distances[:, kept].mean(dim=1)
        return Verdict(flagged=excluded, excluded=excluded, model=model, scores=scores.tolist())


def model_gram(updates: Updates) -> Tensor:
    """Return the models' inner products <w_i, w_j>, from those of the updates u_i = w_i - w_g.

    They are <u_i, u_j> + <u_i, w_g> + <u_j, w_g> + ||w_g||^2. The models themselves are not read again.

    Args:
        updates: the round's updates.

    Returns:
        (clients, clients), float64.
    """
    along = updates.dot(updates.center)
    square = flatten(updates.center, updates.names).double().square().sum()
    return updates.gram + along[:, None] + along + square


def outside_majority(distances: Tensor) -> list[bool]:
    """Return for each client whether it is outside of HDBSCAN's cluster of more than half of the clients.

    Args:
        distances: (clients, clients), symmetric but for rounding.

    Returns:
        One value per client; all True if there is no such cluster; False for a single client.
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
    return (labels != 0).tolist()  # type: ignore[no-any-return]  # 0 is the one cluster, -1 stands for outliers
