"""CRFL: the aggregated model is clipped and noised in every round, and noised copies of it vote on predictions.

Source: Xie et al., "CRFL: Certifiably Robust Federated Learning against Backdoor Attacks", ICML 2021, arXiv 2106.08283,
algorithms 1 and 2. The paper's bound on the length grows by rounds, from a number set by hand for each network; to
start from the length of the federation's first model is this project's own. FedML's own `fedml:crfl` has no vote.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.tied import tied_names, with_one_value
from fedml_gradcam_ae.contract.updates import model_length
from fedml_gradcam_ae.defenses.flcert import MajorityVote
from fedml_gradcam_ae.defenses.shared.noise import with_noise
from fedml_gradcam_ae.networks.images import seeded_generator
from fedml_gradcam_ae.networks.outputs import Classifier, OutputSettings


@register_defense("crfl")
class CRFL(Defense):
    """The average weighted by samples, clipped to the length rho_t = rho_0 + r t and noised with N(0, sigma^2).

    Clients start from the noised model. Tests use the majority vote of M models, each the clipped model with noise of
    its own (`predictor`), which needs the simulator `sp`; elsewhere the noised model is tested. No client is left out.
    The paper's certificate is not computed.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.crfl import CRFL
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (3.0, 4.0, 8.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = CRFL(CRFL.Settings(start=2.0, growth=0.5, noise=0.0)).judge(round)
        >>> verdict.model  # the mean, 5.0, clipped to 2.5
        {'weight': tensor([[2.5000]])}
    """

    class Settings(OutputSettings, DefenseSettings):
        """The settings of CRFL; growth and noise are the authors' for MNIST."""

        start: float | None = Field(
            default=None,
            gt=0,
            description="rho_0, the model's longest length before the first round (the authors' for MNIST: 2); null: "
            "the length of the model that the first round starts from",
        )
        growth: float = Field(default=0.1, ge=0, description="r, how much longer the model may be each round")
        bound: float | None = Field(
            default=None, gt=0, description="the longest length in any round (the authors' for MNIST: 15); null: none"
        )
        noise: float = Field(default=0.01, ge=0, description="sigma: the noise's deviation (the unit of weights)")
        votes: int = Field(
            default=20, ge=1, description="M, how many noised models vote on a prediction (the paper's: 1000)"
        )
        seed: int = Field(default=0, ge=0, description="draws the noise")

    settings: Settings
    not_composed = "it leaves out no client"

    def __init__(self, settings: CRFL.Settings | None = None) -> None:
        super().__init__(settings)
        self._start = self.settings.start
        self._clipped: dict[str, Tensor] = {}
        self._trained: list[str] = []

    @override
    def protects(self, clients: int) -> bool:
        """Return False: it bounds the length of the model, not what an upload does to its direction."""
        return False

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the clipped and noised average."""
        settings = self.settings
        if self._start is None:
            self._start = model_length(round.global_model, round.parameters)
        limit = min(self._start + settings.growth * round.number, settings.bound or math.inf)
        weights = torch.tensor(sample_weights(round.samples, [False] * len(round.uploads)), dtype=torch.float64)
        updates = round.bounded.updates
        model = updates.combine(weights.to(round.global_model[round.parameters[0]].device))
        self._clipped = with_one_value(clipped_model(model, round.parameters, limit), round.tied)
        self._trained = list(round.parameters)
        generator = seeded_generator(settings.seed, round.number)
        return Verdict(model=with_noise(self._clipped, round.parameters, round.tied, settings.noise, generator))

    @override
    def predictor(self, network: nn.Module) -> nn.Module:
        """Return the majority vote of the noised models as a module whose output are class scores."""
        if not self._clipped:
            return network
        settings = self.settings
        tied = tied_names(network)
        models = NoisyModels(self._clipped, self._trained, tied, settings.noise, settings.votes, settings.seed)
        return MajorityVote(Classifier(network, settings.logits), models)

    @override
    def state(self) -> dict[str, Any]:
        """Return the state to save: rho_0, and the last clipped model."""
        return {"start": self._start, "clipped": self._clipped, "trained": list(self._trained)}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._start, self._clipped, self._trained = state["start"], dict(state["clipped"]), list(state["trained"])


class NoisyModels:
    """Copies of a model with Gaussian noise, drawn as they are read, and the same ones each time.

    Args:
        model: the state dict.
        names: the parameters that get noise.
        tied: the names under which the network repeats a tensor, each with the parameter's own name.
        deviation: the standard deviation of the noise.
        count: the number of copies.
        seed: draws the noise.
    """

    def __init__(
        self,
        model: Mapping[str, Tensor],
        names: Sequence[str],
        tied: Mapping[str, str],
        deviation: float,
        count: int,
        seed: int,
    ) -> None:
        self.model, self.names, self.tied = model, names, tied
        self.deviation, self.count, self.seed = deviation, count, seed

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        for number in range(self.count):
            # Rounds count from 1, so the draws of round 0 are free.
            generator = seeded_generator(self.seed, 0, number)
            yield with_noise(self.model, self.names, self.tied, self.deviation, generator)


def clipped_model(model: Mapping[str, Tensor], names: Sequence[str], limit: float) -> dict[str, Tensor]:
    """Return the model with some tensors scaled so that their length together is at most `limit`.

    Args:
        model: a state dict.
        names: the tensors.
        limit: the longest length.

    Example:
        >>> clipped_model({"weight": torch.tensor([3.0]), "bias": torch.tensor([4.0])}, ["weight", "bias"], limit=1.0)
        {'weight': tensor([0.6000]), 'bias': tensor([0.8000])}
    """
    length = model_length(model, names)
    factor = limit / length if length > limit else 1.0
    scaled = {name: (model[name].double() * factor).to(model[name].dtype) for name in names}
    return {**model, **scaled}
