"""What a defense or an attack is given (Round), what a defense answers (Verdict), and which uploads are usable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedml_gradcam_ae.updates import Updates

ClientId = int | str
Upload: TypeAlias = "Mapping[str, Tensor]"  # a state dict; quoted, since this module does not wait for torch


@dataclass(frozen=True)
class Round:
    """One round of a federation, as the server sees it.

    Attributes:
        number: the round t, counted from 1.
        client_ids: who uploaded, in the order of `uploads`: real identities, not positions.
        uploads: one state dict per client.
        samples: the number of samples that each client claims, D_l; untrusted.
        global_model: the state dict that the clients started from.
        network: the architecture, a private copy in eval mode whose weights mean nothing. Its device
            is the one to compute on.
        test_data: the server's own data, an iterable of batches (images, labels).
        local_data: training data by client id, for attacks in a simulation; always empty for a defense.
        rejected: clients whose upload is missing from the lists above because it was unusable,
            with the reason.
    """

    number: int
    client_ids: Sequence[ClientId]
    uploads: Sequence[Upload]
    samples: Sequence[float]
    global_model: Mapping[str, Tensor]
    network: nn.Module
    test_data: Iterable[Any]
    local_data: Mapping[ClientId, Iterable[Any]] = field(default_factory=dict)
    rejected: Mapping[ClientId, str] = field(default_factory=dict)

    @cached_property
    def parameters(self) -> list[str]:
        """The names of the trainable parameters: what a client changes by training, statistics not included."""
        named = list(self.network.named_parameters())
        return [name for name, parameter in named if parameter.requires_grad] or [name for name, _ in named]

    @cached_property
    def updates(self) -> Updates:
        """u_i = w_i - w_g over the trainable parameters; their distances are computed once a round, for all rules."""
        from fedml_gradcam_ae.updates import Updates

        return Updates(self.uploads, self.global_model, self.parameters)

    def over(self, updates: Updates) -> Round:
        """The same round for rules that judge by `updates` alone, with others in their place."""
        changed = replace(self)
        changed.__dict__["updates"] = updates
        return changed

    def only(self, positions: Sequence[int]) -> Round:
        """The same round with the uploads at these positions alone."""
        return replace(
            self,
            client_ids=[self.client_ids[i] for i in positions],
            uploads=[self.uploads[i] for i in positions],
            samples=[self.samples[i] for i in positions],
        )


@dataclass(frozen=True)
class Verdict:
    """A defense's answer to a round; every list runs over `Round.client_ids`.

    Attributes:
        flagged: this round's flag, True for suspicious; None for a rule that leaves nobody out by name.
        excluded: what the aggregation leaves out (a vote over rounds may differ from the flags); None likewise.
        weights: each client's weight in the aggregate, 0 where excluded, sum 1; all 0 means that nobody
            is left and the global model stays. None where `model` is given.
        model: the aggregate itself, for rules that make one.
        scores: suspicion, higher is worse; None where the rule has none.
        threshold: the score above which a client is flagged; None where the rule has none.
        seconds: time spent, by stage.
        evidence: tensors that a picture of this round needs, by name.
        reasons: why a client was left out other than by its score, by client id.
    """

    flagged: Sequence[bool] | None = None
    excluded: Sequence[bool] | None = None
    weights: Sequence[float] | None = None
    model: Mapping[str, Tensor] | None = None
    scores: Sequence[float] | None = None
    threshold: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    evidence: Mapping[str, Tensor] = field(default_factory=dict)
    reasons: Mapping[ClientId, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.weights is None) == (self.model is None):
            raise ValueError("A Verdict needs either weights or a model, not both and not neither.")
        lengths = {
            name: len(value)
            for name in ("flagged", "excluded", "weights", "scores")
            if (value := getattr(self, name)) is not None
        }
        if len(set(lengths.values())) > 1:
            raise ValueError(f"A Verdict's lists must have one entry per client, found lengths {lengths}.")


def sample_weights(samples: Sequence[float], excluded: Sequence[bool]) -> list[float]:
    """Weights D_l / S of the clients that are kept, renormalized to sum 1 (paper, eq. 18 with its erratum).

    Returns:
        One weight per client, 0 for the excluded; all 0 if everybody is excluded.
    """
    kept = [0.0 if out else float(number) for number, out in zip(samples, excluded, strict=True)]
    total = math.fsum(kept)
    return [number / total for number in kept] if total > 0 else kept


def screen(round: Round) -> Round:
    """The round with its unusable uploads taken out and named, with the reason, in `rejected`."""
    rejected: dict[ClientId, str] = {}
    usable = []
    for position, client in enumerate(round.client_ids):
        problem = sample_problem(round.samples[position]) or upload_problem(round.uploads[position], round.global_model)
        if problem is None:
            usable.append(position)
        else:
            rejected[client] = problem
    return replace(round.only(usable), rejected={**round.rejected, **rejected})


def sample_problem(samples: object) -> str | None:
    """Why a claimed number of samples cannot be used, or None if it can."""
    try:
        number = float(samples)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number) and number > 0:
        return None
    return f"the claimed number of samples must be a positive finite number, found {samples!r}"


def upload_problem(upload: object, template: Mapping[str, Tensor]) -> str | None:
    """Why an upload cannot stand for a model shaped like `template`, or None if it can."""
    import torch

    if not isinstance(upload, Mapping):
        return f"an upload must be a mapping from names to tensors, found {type(upload).__name__}"
    if missing := [name for name in template if name not in upload]:
        return f"{len(missing)} of {len(template)} tensors are missing, the first is {missing[0]!r}"
    if extra := [name for name in upload if name not in template]:
        return f"{len(extra)} tensors do not belong to the model, the first is {extra[0]!r}"
    for name, expected in template.items():
        found = upload[name]
        if not isinstance(found, torch.Tensor):
            return f"{name!r} must be a tensor, found {type(found).__name__}"
        if found.shape != expected.shape:
            return f"{name!r} must have shape {tuple(expected.shape)}, found {tuple(found.shape)}"
        if found.dtype != expected.dtype:
            return f"{name!r} must be {expected.dtype}, found {found.dtype}"
        # A sum that is finite has finite terms only, and takes a tenth of the time that looking at each one takes.
        if not torch.isfinite(found.sum()) and not torch.isfinite(found).all():
            return f"{name!r} holds NaN or infinity"
    return None
