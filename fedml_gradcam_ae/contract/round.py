"""What a defense or an attack is given (Round), and what a defense answers (Verdict, or TooFewUploads)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from fedml_gradcam_ae.contract.upload import ClientId, Upload

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedml_gradcam_ae.contract.bounding import Steps
    from fedml_gradcam_ae.contract.updates import Updates

LISTS = ("flagged", "excluded", "weights", "scores")  # of a Verdict, an entry for each client
WEIGHTS_SUM_TO = 1e-6  # 1, up to this: what sums of float32 numbers are off
LARGEST_STEP = 10.0  # in median steps: what honest clients were measured to need, IID at most 4, Dirichlet mostly 8


class Part(NamedTuple):
    """Where a round was taken from: another round, and the positions in it."""

    round: Round
    positions: Sequence[int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """One round of a federation, as the server sees it; compared by identity.

    Attributes:
        number: the round t, counted from 1.
        client_ids: the clients that uploaded, in the order of `uploads`: real identities, not positions.
        uploads: one state dict per client.
        samples: the number of samples that each client claims, D_l; untrusted.
        global_model: the state dict that the clients started from.
        network: the architecture, a private copy in eval mode whose weights mean nothing. Its device
            is the one to compute on.
        test_data: the server's own data, an iterable of batches (images, labels).
        local_data: training data by client id, for attacks in a simulation; always empty for a defense.
        rejected: clients whose upload is missing from the lists above because it was unusable,
            with the reason.
        largest_step: the largest step of a tensor that is kept, in units of the median client's step
            (see `bounded`); None: no limit.
        replaced: what `updates` answers with in place of the differences of `uploads`; see `over`.
        part_of: where this round was taken from; see `only`.
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
    largest_step: float | None = LARGEST_STEP
    replaced: Updates | None = field(default=None, repr=False)
    part_of: Part | None = field(default=None, repr=False)

    @cached_property
    def parameters(self) -> list[str]:
        """The names of the trainable parameters: what a client changes by training, statistics not included."""
        named = list(self.network.named_parameters())
        return [name for name, parameter in named if parameter.requires_grad] or [name for name, _ in named]

    @cached_property
    def updates(self) -> Updates:
        """u_i = w_i - w_g over the trainable parameters; their distances are computed once a round, for all rules."""
        from fedml_gradcam_ae.contract.updates import Updates

        if self.replaced is not None:
            return self.replaced
        return Updates(self.uploads, self.global_model, self.parameters, tied=self.tied)

    @cached_property
    def tied(self) -> dict[str, str]:
        """Names under which the network has one of its tensors again, each with that parameter's name."""
        from fedml_gradcam_ae.contract.tied import tied_names

        return tied_names(self.network)

    @cached_property
    def steps(self) -> Steps:
        """The length of each upload's change of each tensor; computed once a round, for all rules."""
        from fedml_gradcam_ae.contract.bounding import Steps

        whole = self._whole
        if whole is None:
            return Steps.of(self.uploads, self.global_model, self.samples)
        return whole.round.steps.only(whole.positions)

    @cached_property
    def bounded(self) -> Round:
        """The round to aggregate, once it is judged: the same with no step longer than `bounding` has it."""
        from fedml_gradcam_ae.contract.bounding import bounded

        if self.largest_step is None or not self.uploads:
            return self
        whole = self._whole
        if whole is not None:
            every = whole.round.bounded.uploads
            uploads = [every[position] for position in whole.positions]
        else:
            factors = self.steps.factors(self.largest_step)
            every = uploads = bounded(self.uploads, self.global_model, self.steps.names, factors)
        replaced = self.replaced
        if replaced is not None:
            # A mixture may hold uploads of which some are not in this part.
            replaced = replaced.of(uploads if replaced.mixing is None else every)
        if replaced is None and all(kept is given for kept, given in zip(uploads, self.uploads, strict=True)):
            return self
        return replace(self, uploads=uploads, replaced=replaced, largest_step=None)

    @property
    def _whole(self) -> Part | None:
        """What this round is a part of, unless its uploads have been replaced since."""
        part = self.part_of
        if part is None or any(
            self.uploads[i] is not part.round.uploads[position] for i, position in enumerate(part.positions)
        ):
            return None
        return part

    @cached_property
    def shortened(self) -> list[int]:
        """The number of tensors of each upload that `bounded` pulls toward the global model."""
        both = zip(self.uploads, self.bounded.uploads, strict=True)
        return [sum(kept[name] is not given[name] for name in given) for given, kept in both]

    def over(self, updates: Updates) -> Round:
        """Return a copy of the round with other updates, for rules that judge by `updates` alone.

        Args:
            updates: as many as there are uploads, and made from them.
        """
        return replace(self, replaced=updates, part_of=Part(self, range(len(self.uploads))))

    def only(self, positions: Sequence[int]) -> Round:
        """Return a copy of the round with some of the uploads; the bound on steps still depends on all of them."""
        return replace(
            self,
            client_ids=[self.client_ids[i] for i in positions],
            uploads=[self.uploads[i] for i in positions],
            samples=[self.samples[i] for i in positions],
            replaced=None if self.replaced is None else self.replaced.only(positions),
            part_of=Part(self, positions),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
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
        lengths = {name: len(value) for name in LISTS if (value := getattr(self, name)) is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"A Verdict's lists must have one entry per client, found lengths {lengths}.")
        if self.weights is not None:
            self._check_weights([float(weight) for weight in self.weights])

    def _check_weights(self, weights: list[float]) -> None:
        for position, weight in enumerate(weights):
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(
                    f"A Verdict's weights must be finite and at least 0, found {weight} for the client at position "
                    f"{position}."
                )
            if weight > 0 and self.excluded is not None and self.excluded[position]:
                raise ValueError(
                    f"A Verdict must give an excluded client the weight 0, found {weight} for the client at position "
                    f"{position}."
                )
        total = math.fsum(weights)
        if total != 0 and not math.isclose(total, 1, abs_tol=WEIGHTS_SUM_TO):
            raise ValueError(f"A Verdict's weights must sum to 1, or all be 0, found the sum {total:g}.")

    @property
    def clients(self) -> int | None:
        """The number of clients that the lists run over; None where there is no list."""
        return next((len(value) for name in LISTS if (value := getattr(self, name)) is not None), None)


class TooFewUploads(RuntimeError):  # noqa: N818 - not an error of the program: what happens then is a setting
    """A rule has fewer usable uploads than its guarantee needs; raised by `judge`.

    Args:
        needed: how many uploads it needs.
        found: how many there are.
    """

    def __init__(self, needed: int, found: int) -> None:
        super().__init__(f"{needed} usable uploads are needed, found {found}")
        self.needed, self.found = needed, found


def sample_weights(samples: Sequence[float], excluded: Sequence[bool]) -> list[float]:
    """Weights D_l / S of the clients that are kept, renormalized to sum 1 (paper, eq. 18 with its erratum).

    Returns:
        One weight per client, 0 for the excluded; all 0 if everybody is excluded.
    """
    kept = [0.0 if out else float(number) for number, out in zip(samples, excluded, strict=True)]
    total = math.fsum(kept)
    return [number / total for number in kept] if total > 0 else kept
