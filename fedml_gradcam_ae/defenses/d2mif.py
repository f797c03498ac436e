"""D2MIF: an isolation forest on the updates, with a threshold that Q-learning adapts.

Source: "D2MIF: A Malicious Model Detection Mechanism for Federated-Learning-Empowered Artificial Intelligence of
Things", IEEE Internet of Things Journal 2021, DOI 10.1109/JIOT.2021.3081606. Only the abstract was at hand: an
isolation forest scores the models, and those above a threshold that reinforcement learning adjusts are left out. It
names neither states nor actions nor a reward, so these, the random projection and the range of the threshold are our
reading. The forest is that of Liu, Ting and Zhou, "Isolation Forest", ICDM 2008.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.maths.cosine import cosine_matrix
from fedml_gradcam_ae.networks.evaluating import answer, constants, evaluating
from fedml_gradcam_ae.networks.images import draw_images, seeded_generator
from fedml_gradcam_ae.networks.outputs import Classifier, OutputSettings, count_classes

LEVELS = [round(0.5 + 0.02 * level, 2) for level in range(16)]  # the thresholds delta, 0.5 to 0.8
STAY = 1  # of the actions 0 (lower), 1 (stay), 2 (higher)
_SUBSAMPLE = 256  # the most clients that a tree is grown from
_FAR = 1e6  # coordinates are clamped to this many median lengths
_BATCH = 256  # images that the network is given at a time


@register_defense("d2mif")
class D2MIF(Defense):
    """The average without the clients whose isolation score is above an adaptive threshold delta.

    The score of a client is s = 2^(-E[h] / c(K)), with h the depth at which a random tree isolates its update from the
    others, and c(K) the mean depth for K points: 0.5 is usual, 1 an outlier. The trees look at a Gaussian projection of
    the updates.

    Each round, delta may go down or up by 0.02 between 0.5 and 0.8. Tabular Q-learning decides: the state is delta and
    whether the last round lowered or raised the accuracy of the global model on images of the server's test data, and
    the reward is the change of that accuracy in the round after the decision. Of one or two clients none is left out.

    State: the table of Q values, delta, and the last decision.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.d2mif import D2MIF
        >>> updates = ([1.0, 0.9], [1.0, 1.1], [1.1, 1.0], [0.9, 1.0], [-9.0, 5.0])
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([update, update])} for update in updates],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(2, 2)},
        ...     network=torch.nn.Linear(2, 2, bias=False),
        ...     test_data=[(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))],
        ... )
        >>> verdict = D2MIF(D2MIF.Settings()).judge(round)
        >>> verdict.excluded, verdict.threshold
        ([False, False, False, False, True], 0.6)
    """

    class Settings(OutputSettings, DefenseSettings):
        """The settings of the forest and of Q-learning; the paper's own are not known to us."""

        delta: float = Field(
            default=0.6, ge=0.5, le=0.8, description="the first threshold: 0.5 to 0.8 in steps of 0.02"
        )
        trees: int = Field(default=100, ge=1, description="trees of the isolation forest")
        dimensions: int = Field(default=32, ge=1, description="numbers that each update is projected to")
        test_images: int = Field(
            default=500, ge=1, description="test images, the same in all rounds, that the accuracy is measured on"
        )
        learning_rate: float = Field(default=0.1, gt=0, le=1, description="of Q-learning")
        discount: float = Field(default=0.9, ge=0, lt=1, description="of Q-learning: what later rewards count")
        exploration: float = Field(
            default=0.1, ge=0, le=1, description="the share of rounds in which delta moves at random"
        )
        seed: int = Field(default=0, ge=0, description="draws the projection, the trees, the images and random moves")

        @field_validator("delta")
        @classmethod
        def _check_delta(cls, value: float) -> float:
            if min(abs(value - level) for level in LEVELS) > 1e-9:
                raise ValueError("delta must be one of 0.5, 0.52, ..., 0.8")
            return value

    settings: Settings

    def __init__(self, settings: D2MIF.Settings | None = None) -> None:
        super().__init__(settings)
        self._table = torch.zeros(len(LEVELS), 3, 3, dtype=torch.float64)  # by level, trend and action
        self._level = min(range(len(LEVELS)), key=lambda level: abs(LEVELS[level] - self.settings.delta))
        self._accuracy: float | None = None  # of the last round's global model
        self._decision = (0, 0, 0)  # the last round's level before its move, trend and action

    @override
    def protects(self, clients: int) -> bool:
        """Return whether an upload that each tree isolates at once scores above the first delta: 2^(-1 / c(K))."""
        if not super().protects(clients):
            return False
        # c(K) as scikit-learn has it, with Euler's constant for the harmonic number.
        usual_depth = 2 * (math.log(clients - 1) + float(np.euler_gamma)) - 2 * (clients - 1) / clients
        return 2 ** (-1 / usual_depth) > self.settings.delta

    @override
    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Check that the network can classify the server's test images.

        Args:
            network: the architecture.
            test_data: the server's batches (images, labels).

        Raises:
            ValueError: if the test data hold no labeled image, or the network cannot run on them.
        """
        self._images(Classifier(network, self.settings.logits), test_data)

    @override
    def judge(self, round: Round) -> Verdict:
        """Learn from the last round's change of accuracy, move delta, and leave out the clients that score above it.

        Raises:
            ValueError: if `prepare` does.
        """
        start = perf_counter()
        settings, number = self.settings, round.number
        network = Classifier(round.network, settings.logits)
        accuracy = accuracy_of(network, round.global_model, *self._images(network, round.test_data))
        measured = perf_counter()
        self._adapt(accuracy, number)
        points = projected(round.updates.gram, settings.dimensions, seeded_generator(settings.seed, 1, number))
        scores = isolation_scores(points, seeded_generator(settings.seed, 2, number), settings.trees)
        threshold = LEVELS[self._level]
        flagged = (scores > threshold).tolist()
        return Verdict(
            flagged=flagged,
            excluded=flagged,
            weights=sample_weights(round.samples, flagged),
            scores=scores.tolist(),
            threshold=threshold,
            seconds={"accuracy": measured - start},
        )

    @override
    def state(self) -> dict[str, Any]:
        """Return the state to save: the Q values, delta's level, and the last round's accuracy and decision."""
        return {
            "table": self._table.clone(),
            "level": self._level,
            "accuracy": self._accuracy,
            "decision": list(self._decision),
        }

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._table, self._level, self._accuracy = state["table"].clone(), int(state["level"]), state["accuracy"]
        level, trend, action = state["decision"]
        self._decision = (int(level), int(trend), int(action))

    def _images(self, network: nn.Module, test_data: Iterable[Any]) -> tuple[Tensor, Tensor]:
        """Return the images that the accuracy is measured on, and their labels."""
        like, generator = next(network.parameters()), seeded_generator(self.settings.seed, 0)
        try:
            one, _ = draw_images(test_data, 1, generator, labeled=False)
            classes = count_classes(Classifier(network, self.settings.logits), one.to(like))
            images, labels = draw_images(test_data, self.settings.test_images, generator, classes=classes)
        except ValueError as error:
            raise ValueError(f"d2mif measures the accuracy on the server's test data. {error}") from None
        return images.to(like), labels.to(like.device)

    def _adapt(self, accuracy: float, number: int) -> None:
        """Reward the last decision with the change of accuracy, and decide where delta goes now."""
        settings, trend = self.settings, 1  # of the trends 0 (lower), 1 (the same), 2 (higher)
        if self._accuracy is not None:
            reward = accuracy - self._accuracy
            trend = 1 + (reward > 0) - (reward < 0)
            learn(self._table, self._decision, reward, (self._level, trend), settings.learning_rate, settings.discount)
        generator = seeded_generator(settings.seed, 3, number)
        action = best_action(self._table[self._level, trend])
        if float(torch.rand((), generator=generator, dtype=torch.float64)) < settings.exploration:
            action = int(torch.randint(3, (), generator=generator))
        self._accuracy, self._decision = accuracy, (self._level, trend, action)
        self._level = min(max(self._level + action - STAY, 0), len(LEVELS) - 1)


def projected(gram: Tensor, dimensions: int, generator: torch.Generator) -> Tensor:
    """Return a Gaussian projection of vectors, scaled by their median length, from their inner products alone.

    A product U R of the vectors' matrix U with Gaussian numbers R is normally distributed with the covariance U U^T in
    each column. So is S Z with S^2 = U U^T and (clients, dimensions) Gaussian numbers Z, which costs nothing in d. The
    square root is that of the cosines, since long vectors would blur the short ones.

    Args:
        gram: (clients, clients), the inner products.
        dimensions: how many numbers each vector is projected to.
        generator: draws Z, on the CPU.

    Returns:
        (clients, dimensions), float64, on the CPU. The expectation of their inner products is `dimensions` times that
        of the scaled vectors.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, -2.0]])
        >>> points = projected(vectors @ vectors.T, 10_000, torch.Generator().manual_seed(0))
        >>> (points @ points.T / 10_000).round(decimals=1)
        tensor([[1., 1., 0.],
                [1., 1., 0.],
                [0., 0., 4.]], dtype=torch.float64)
    """
    gram = gram.double().cpu()
    lengths = gram.diagonal().clamp(min=0).sqrt()
    values, vectors = torch.linalg.eigh(cosine_matrix(gram))
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    moved = lengths[lengths > 0]
    scale = moved.sort().values[(len(moved) - 1) // 2] if len(moved) else 1.0
    drawn = torch.randn(len(gram), dimensions, generator=generator, dtype=torch.float64)
    found: Tensor = ((lengths / scale).clamp(max=_FAR)[:, None] * (root @ drawn)).clamp(-_FAR, _FAR)
    return found


def isolation_scores(points: Tensor, generator: torch.Generator, trees: int = 100) -> Tensor:
    """Return the anomaly scores s of an isolation forest, 2^(-mean depth / c(points)).

    Args:
        points: (clients, dimensions).
        generator: draws the forest's seed.
        trees: how many trees there are.

    Returns:
        (clients,), float64, from 0 to 1; 0.5 for fewer than three points and for equal ones.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0]])
        >>> (isolation_scores(points, torch.Generator().manual_seed(0)) > 0.6).tolist()
        [False, False, False, False, True]
    """
    from sklearn.ensemble import IsolationForest

    clients = len(points)
    if clients < 3:
        return torch.full((clients,), 0.5, dtype=torch.float64)
    forest = IsolationForest(
        n_estimators=trees,
        max_samples=min(_SUBSAMPLE, clients),
        random_state=int(torch.randint(2**31 - 1, (), generator=generator)),
    )
    rows = points.float().cpu().numpy()
    return torch.as_tensor(-forest.fit(rows).score_samples(rows), dtype=torch.float64)


def learn(
    table: Tensor,
    decision: tuple[int, int, int],
    reward: float,
    state: tuple[int, int],
    learning_rate: float,
    discount: float,
) -> None:
    """Update a table of Q values in place: Q(s, a) += alpha (r + gamma max_b Q(s', b) - Q(s, a)).

    Args:
        table: (levels, trends, actions), Q.
        decision: the level and the trend s, and the action a.
        reward: r.
        state: the level and the trend s' that followed.
        learning_rate: alpha.
        discount: gamma.

    Example:
        >>> table = torch.zeros(1, 2, 2)
        >>> table[0, 1, 0] = 1.0
        >>> learn(table, (0, 0, 1), reward=0.5, state=(0, 1), learning_rate=0.1, discount=0.9)
        >>> f"{table[0, 0, 1]:.2f}"  # 0.1 (0.5 + 0.9 * 1 - 0)
        '0.14'
    """
    table[decision] += learning_rate * (reward + discount * table[state].max() - table[decision])


def best_action(values: Tensor) -> int:
    """Return the action with the largest Q value; to stay, if no other is better.

    Args:
        values: (actions,), Q of a state.
    """
    best = int(values.argmax())
    return best if bool(values[best] > values[STAY]) else STAY


def accuracy_of(network: nn.Module, model: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> float:
    """Return the share of images that a model classifies rightly.

    Args:
        network: a classifier; it is run in eval mode on the model's tensors.
        model: a state dict.
        images: (images, channels, height, width), on the network's device.
        labels: (images,), classes.
    """
    tensors = constants(model, images.device)
    right = 0
    with evaluating(network), torch.no_grad():
        for batch, expected in zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True):
            right += int((answer(network, tensors, batch).argmax(dim=1) == expected).sum())
    return right / len(labels)
