"""Rules that transform a round and hand it to another rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from typing_extensions import override

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import AssumesMalicious, DefenseSettings, read_settings
from fedml_gradcam_ae.contract.updates import sums_to_one

# The rules that judge by the updates alone.
Rule = Literal["krum", "multi_krum", "bulyan", "trimmed_mean", "median", "geometric_median", "centered_clipping", "dnc"]


class InFrontSettings(AssumesMalicious):
    """The rule that the transformed updates go to, one of those that judge by the updates alone, and f."""

    rule: Rule = Field(default="trimmed_mean", description="the rule that the transformed updates go to")
    rule_params: dict[str, Any] = Field(
        default_factory=dict, description="its parameters; `malicious` is taken over where it has that key"
    )

    @model_validator(mode="after")
    def _check_rule(self) -> InFrontSettings:
        settings = self.rule_settings()
        if settings.pre or settings.then is not None:
            raise ValueError("rule_params: the rule takes no `pre` or `then` here: write `pre` beside the rule itself")
        return self

    def rule_settings(self) -> DefenseSettings:
        """Return the other rule's settings, checked.

        Raises:
            SettingsError: if they are wrong.
        """
        model = registry.defenses()[self.rule].Settings
        shared = {"malicious": self.malicious} if issubclass(model, AssumesMalicious) else {}
        settings: DefenseSettings = read_settings(
            model, {**shared, **self.rule_params}, "defense_params.rule_params", self.rule
        )
        return settings

    @override
    def check_clients(self, clients: int) -> None:
        """Check that there are enough clients for the transformation and for the other rule.

        Raises:
            ValueError: if there are too few.
        """
        super().check_clients(clients)
        self.rule_settings().check_clients(clients)


class InFront(Defense):
    """Base class of rules that transform a round and hand it to another rule.

    A subclass implements `transformed`.

    Args:
        settings: checked values of `Settings`; None: the defaults.
    """

    Settings: type[InFrontSettings] = InFrontSettings

    settings: InFrontSettings
    not_composed = "it leaves out no client by itself (write `pre` in front of the rule that does)"

    def __init__(self, settings: InFrontSettings | None = None) -> None:
        super().__init__(settings)
        self.rule: Defense = registry.defenses()[self.settings.rule](self.settings.rule_settings())

    def transformed(self, round: Round) -> Round:
        """Return the round that the other rule judges.

        Args:
            round: the round.
        """
        raise NotImplementedError

    @override
    def protects(self, clients: int) -> bool:
        """Return whether both the transformation and the other rule withstand one malicious upload."""
        return super().protects(clients) and self.rule.protects(clients)

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the other rule's verdict on the transformed updates, as one on the uploads; see `carry_back`.

        Raises:
            TooFewUploads: if there are too few uploads for the transformation or for the other rule.
        """
        judged = self.transformed(round)
        return carry_back(self.rule.judge(judged), judged, round)

    @override
    def state(self) -> dict[str, Any]:
        """Return the other rule's state."""
        return self.rule.state()

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.rule.restore(state)


def carry_back(verdict: Verdict, judged: Round, original: Round) -> Verdict:
    """Return a verdict on mixtures of uploads as one on the uploads.

    Weights p of the mixtures become the weights M^T p of the uploads: a client whose own mixture is left out still
    counts in the mixtures of others. Where the rows of M do not sum to 1, no weights of uploads give the aggregate, so
    it becomes the verdict's model. Flags and scores of a mixture are those of the client at its position, or, where
    there are fewer mixtures than uploads, of each client in it.

    Args:
        verdict: the verdict on `judged`.
        judged: the round that a step, or a chain of steps, made from `original`.
        original: the round of uploads.

    Example:
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 8.0)],
        ...     samples=[10.0] * 2,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> mean = round.mixed(torch.tensor([[0.5, 0.5]]), client_ids=["both"], samples=[20.0])
        >>> verdict = carry_back(Verdict(weights=[1.0], scores=[3.0]), mean, round)
        >>> verdict.weights, verdict.scores
        ([0.5, 0.5], [3.0, 3.0])
        >>> shortened = round.mixed(torch.diag(torch.tensor([1.0, 0.125])))
        >>> carry_back(Verdict(weights=[0.5, 0.5]), shortened, round).model
        {'weight': tensor([[1.]])}
    """
    weights = None if verdict.weights is None else torch.tensor(list(verdict.weights), dtype=torch.float64)
    owner, means, at = list(range(len(judged.uploads))), True, judged
    while at is not original:
        mixing = None if at.part_of is None else at.part_of.mixing
        if at.part_of is None or mixing is None:
            raise ValueError("`judged` must be made from `original` by `Round.mixed`, found another round.")
        mixing = mixing.double().cpu()
        if len(mixing) != mixing.shape[1]:
            owner = [owner[mixture] for mixture in mixing.argmax(dim=0).tolist()]
        weights = None if weights is None else mixing.T @ weights
        means = means and all(sums_to_one(mixing))
        at = at.part_of.round
    found: dict[str, Any] = {}
    for name in ("flagged", "excluded", "scores"):
        value = getattr(verdict, name)
        found[name] = None if value is None else [value[mixture] for mixture in owner]
    ids = [judged.client_ids[mixture] for mixture in owner]
    found["reasons"] = {
        client: verdict.reasons[mixture]
        for client, mixture in zip(original.client_ids, ids, strict=True)
        if mixture in verdict.reasons
    }
    if weights is not None and verdict.weights is not None:
        if means or not any(verdict.weights):
            found["weights"] = weights.tolist()
            found["excluded"] = None if verdict.excluded is None else [weight == 0 for weight in weights.tolist()]
        else:
            device = judged.updates.center[judged.updates.names[0]].device
            chosen = torch.tensor(list(verdict.weights), dtype=torch.float64, device=device)
            found |= {"weights": None, "model": judged.bounded.updates.combine(chosen)}
    return replace(verdict, **found)
