"""The input of a defense or an attack (Round), and the answer of a defense (Verdict, or TooFewUploads)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from fedml_gradcam_ae.contract.shown import kind, shown
from fedml_gradcam_ae.contract.upload import ClientId, Upload

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedml_gradcam_ae.contract.bounding import Steps
    from fedml_gradcam_ae.contract.updates import Updates

_LISTS_OF_A_ROUND = ("client_ids", "uploads", "samples")  # the attributes of a Round with one entry per client
LISTS = ("flagged", "excluded", "weights", "scores")  # the attributes of a Verdict with one entry per client
WEIGHTS_SUM_TO = 1e-6  # how far a sum of weights may be from 1: the rounding of sums of float32 numbers
# The longest step of a tensor, in units of the median client's step. Benign clients were measured to need at most 4 on
# IID data, and mostly at most 8 on data split by a Dirichlet distribution.
LARGEST_STEP = 10.0


class Part(NamedTuple):
    """The origin of a round that was taken from another round.

    Attributes:
        round: the other round.
        positions: the positions of the uploads in that round; none where they are mixtures.
        mixing: (mixtures, uploads), the weights of that round's uploads in each mixture; None: no mixtures.
        mixtures: the uploads made with `mixing`.
    """

    round: Round
    positions: Sequence[int] = ()
    mixing: Tensor | None = None
    mixtures: Sequence[Upload] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """One round of a federation as the server sees it. Rounds are compared by identity.

    Attributes:
        number: the round t, counted from 1.
        client_ids: the clients that uploaded, in the order of `uploads`: identities that last over rounds, not
            positions.
        uploads: one state dict per client.
        samples: the number of samples D_l that each client counts for: its claim, bounded by the gate.
        global_model: the state dict that the clients started from, or the federated part of it.
        network: the architecture, a private copy in eval mode; its weights count only where the global model lacks
            them. Its device is the one to compute on.
        test_data: the server's own data, an iterable of batches (images, labels).
        local_data: training data by client id, for attacks in a simulation; always empty for a defense.
        rejected: why the uploads of other clients were unusable, by client id; the lists above leave these clients out.
        largest_step: the largest step of a tensor, in units of the median client's step (see `bounded`); None: no
            limit.
        replaced: what `updates` returns in place of the differences of `uploads`; see `mixed`.
        part_of: the round that this one was taken from; see `only` and `mixed`.

    Raises:
        TypeError: if `client_ids`, `uploads` or `samples` is not a list.
        ValueError: if these lists differ in length. `updates`, `steps` and `bounded` raise it if an upload lacks a
            tensor of the global model, or the global model all parameters of the network.

    Example:
        Three clients, of which the third moves the weight 150 times as far as the median client:

        >>> import torch
        >>> round = Round(
        ...     number=1,
        ...     client_ids=["a", "b", "c"],
        ...     uploads=[{"weight": torch.tensor([[step]])} for step in (1.0, 2.0, 300.0)],
        ...     samples=[20, 20, 20],
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> round.updates.squared_distances[0].tolist()
        [0.0, 1.0, 89401.0]
        >>> [float(upload["weight"]) for upload in round.bounded.uploads], round.shortened
        ([1.0, 2.0, 20.0], [0, 0, 1])
        >>> round.only([0, 2]).client_ids
        ['a', 'c']
        >>> halves = round.mixed(torch.eye(3) / 2)  # halfway from the global model to each upload
        >>> [float(upload["weight"]) for upload in halves.uploads], halves.updates.squared_distances[0].tolist()
        ([0.5, 1.0, 150.0], [0.0, 0.25, 22350.25])
        >>> [float(upload["weight"]) for upload in halves.bounded.uploads]
        [0.5, 1.0, 10.0]
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

    def __post_init__(self) -> None:
        _check_lengths(self, _LISTS_OF_A_ROUND)

    @cached_property
    def parameters(self) -> list[str]:
        """The names of the trainable parameters, which a client changes by training; no running statistics.

        Parameters that the global model lacks are not federated, such as BatchNorm layers that stay at the clients.
        """
        named = [pair for pair in self.network.named_parameters() if pair[0] in self.global_model]
        return [name for name, parameter in named if parameter.requires_grad] or [name for name, _ in named]

    @cached_property
    def updates(self) -> Updates:
        """The updates u_i = w_i - w_g over the trainable parameters.

        Their pairwise distances are computed once a round, for all defenses.
        """
        from fedml_gradcam_ae.contract.updates import Updates

        if self.replaced is not None and self._whole is not None:
            return self.replaced
        self._check_tensors()
        return Updates(self.uploads, self.global_model, self.parameters, tied=self.tied)

    @cached_property
    def tied(self) -> dict[str, str]:
        """The names under which the network repeats a tensor, each with the name of that tensor's parameter."""
        from fedml_gradcam_ae.contract.tied import tied_names

        known = self.global_model
        return {name: first for name, first in tied_names(self.network).items() if name in known and first in known}

    @cached_property
    def steps(self) -> Steps:
        """The length of each upload's change of each tensor, computed once a round, for all defenses."""
        from fedml_gradcam_ae.contract.bounding import Steps

        whole = self._whole
        if whole is None or whole.mixing is not None:
            self._check_tensors()
            return Steps.of(self.uploads, self.global_model, self.samples)
        return whole.round.steps.only(whole.positions)

    @cached_property
    def bounded(self) -> Round:
        """The round to aggregate once it is judged: a copy with steps within the limits of `contract.bounding`.

        The round itself where there is no limit, or where no step exceeds its limit. Mixtures are made of bounded
        uploads; they are not bounded again.
        """
        from fedml_gradcam_ae.contract.bounding import bounded

        if self.largest_step is None or not self.uploads:
            return self
        whole = self._whole
        if whole is not None:
            kept = whole.round.bounded
            if kept is whole.round:
                return self
            if whole.mixing is None:
                taken = kept.only(whole.positions)
            else:
                taken = kept.mixed(whole.mixing, self.client_ids, self.samples)
            return replace(
                taken,
                client_ids=self.client_ids,
                samples=self.samples,
                rejected=self.rejected,
                largest_step=None,
            )
        factors = self.steps.factors(self.largest_step)
        uploads = bounded(self.uploads, self.global_model, self.steps.names, factors)
        if all(kept is given for kept, given in zip(uploads, self.uploads, strict=True)):
            return self
        return replace(self, uploads=uploads, largest_step=None)

    @property
    def _whole(self) -> Part | None:
        """The origin of this round; None where it has none, or where its uploads have been replaced since."""
        part = self.part_of
        if part is None:
            return None
        made = part.mixtures if part.mixing is not None else [part.round.uploads[i] for i in part.positions]
        same = len(made) == len(self.uploads) and all(a is b for a, b in zip(self.uploads, made, strict=True))
        return part if same else None

    def _check_tensors(self) -> None:
        """Check that uploads and global model have their tensors, by name; the values are not read."""
        if not self.parameters:
            names = [name for name, _ in self.network.named_parameters()]
            raise ValueError(
                "A Round's global_model must be a state dict of its network, or a part of one, but has none of its "
                f"{len(names)} parameters, the first of which is {names[0]!r}."
                if names
                else "A Round's network must have parameters, found none."
            )
        for client, upload in zip(self.client_ids, self.uploads, strict=True):
            if not isinstance(upload, Mapping):
                raise ValueError(f"The upload of client {client!r} must be a state dict, found {kind(upload)}.")
            if not self.global_model.keys() <= upload.keys():
                missing = [name for name in self.global_model if name not in upload]
                raise ValueError(
                    f"The upload of client {client!r} must have every tensor of the global model, but lacks "
                    f"{len(missing)} of {len(self.global_model)}, the first is {missing[0]!r}."
                )

    @cached_property
    def shortened(self) -> list[int]:
        """For each upload, the number of tensors that `bounded` pulls toward the global model."""
        both = zip(self.uploads, self.bounded.uploads, strict=True)
        return [sum(kept[name] is not given[name] for name in given) for given, kept in both]

    def mixed(
        self, mixing: Tensor, client_ids: Sequence[ClientId] | None = None, samples: Sequence[float] | None = None
    ) -> Round:
        """Return a round of mixtures of the uploads, whose updates are u'_i = sum_j M_ij u_j.

        No mixture is computed before it is read: `updates` mixes block by block, `uploads` tensor by tensor.

        Args:
            mixing: (mixtures, uploads), M; where a row does not sum to 1, the global model has the rest of the weight.
            client_ids: an identity for each mixture; None: those of the uploads, of which there are as many.
            samples: the number of samples that each mixture counts for; None: those of the uploads.
        """
        from fedml_gradcam_ae.contract.updates import Mixture, sums_to_one

        # Mixtures of mixtures are mixtures of the first uploads.
        given, whole, origin = self.uploads, mixing, self._whole
        while origin is not None and origin.mixing is not None:
            given, whole = origin.round.uploads, whole.double() @ origin.mixing.to(whole.device).double()
            origin = origin.round._whole
        rests = [
            0.0 if mean else 1 - math.fsum(row) for row, mean in zip(whole.tolist(), sums_to_one(whole), strict=True)
        ]
        mixtures = [
            Mixture([*given, self.global_model], [*row, rest]) for row, rest in zip(whole.tolist(), rests, strict=True)
        ]
        return replace(
            self,
            client_ids=self.client_ids if client_ids is None else client_ids,
            uploads=mixtures,
            samples=self.samples if samples is None else samples,
            replaced=self.updates.mixed(mixing),
            part_of=Part(self, mixing=mixing, mixtures=mixtures),
        )

    def only(self, positions: Sequence[int]) -> Round:
        """Return a copy of the round with some of the uploads; the bound on steps still depends on all uploads.

        Args:
            positions: positions in `uploads`.
        """
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
    """A defense's answer to a round. All lists are in the order of `Round.client_ids`.

    Attributes:
        flagged: this round's flags, True for suspicious; None for a rule that leaves out no client by name.
        excluded: True for clients that the aggregation leaves out (a vote over rounds may differ from the flags); None
            as for `flagged`.
        weights: each client's weight in the aggregate, 0 where excluded, sum 1; all 0 means that no client is left and
            the global model stays. None where `model` is given.
        model: the aggregate itself, for rules that make one.
        scores: suspicion, higher is worse; None where the rule has none.
        threshold: the score above which a client is flagged; None where the rule has none.
        seconds: time spent, in seconds, by stage.
        evidence: tensors that are needed to draw this round's picture, by name.
        reasons: why a client was left out for another reason than its score, by client id.

    Raises:
        TypeError: if something else than a list is given where there must be one entry per client.
        ValueError: if there are both weights and a model or neither, if the lists differ in length, or if the weights
            are negative, not finite, positive for an excluded client, or sum to neither 1 nor 0.

    Example:
        >>> Verdict(excluded=[False, False, True], weights=[0.5, 0.5, 0.0]).clients
        3
        >>> Verdict(weights=[0.5, 0.4])
        Traceback (most recent call last):
            ...
        ValueError: A Verdict's weights must sum to 1, or all be 0, found the sum 0.9.
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
        _check_lengths(self, [name for name in LISTS if getattr(self, name) is not None])
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
        """The number of clients in the lists; None where there is no list."""
        return next((len(value) for name in LISTS if (value := getattr(self, name)) is not None), None)


def _check_lengths(owner: Round | Verdict, names: Iterable[str]) -> None:
    """Check that attributes of a round or a verdict are lists of one length."""
    title, lengths = type(owner).__name__, {}
    for name in names:
        value = getattr(owner, name)
        unordered = isinstance(value, (str, bytes, Mapping, Set))
        try:
            lengths[name] = None if unordered else len(value)
        except TypeError:
            unordered = True
        if unordered:
            raise TypeError(f"A {title}'s {name} must be a list with one entry per client, found {shown(value)}.")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"A {title}'s lists must have one entry per client, found lengths {lengths}.")


class TooFewUploads(RuntimeError):  # noqa: N818 - not an error of the program: what happens then is a setting
    """The error of a rule that has fewer usable uploads than its guarantee needs; raised by `judge`.

    Args:
        needed: the number of uploads that the rule needs.
        found: the number of uploads that there are.

    Example:
        >>> print(TooFewUploads(needed=5, found=3))
        5 usable uploads are needed, found 3
    """

    def __init__(self, needed: int, found: int) -> None:
        super().__init__(f"{needed} usable uploads are needed, found {found}")
        self.needed, self.found = needed, found


def sample_weights(samples: Sequence[float], excluded: Sequence[bool]) -> list[float]:
    """Return the weights D_l / S of the clients that are kept, renormalized to sum 1 (paper, eq. 18 with its erratum).

    Args:
        samples: the number of samples D_l of each client.
        excluded: True for clients that are left out.

    Returns:
        One weight per client, 0 for the excluded ones; all 0 if all clients are excluded.

    Example:
        >>> sample_weights([10, 30, 60], [False, False, True])
        [0.25, 0.75, 0.0]
    """
    kept = [0.0 if out else float(number) for number, out in zip(samples, excluded, strict=True)]
    total = math.fsum(kept)
    return [number / total for number in kept] if total > 0 else kept
