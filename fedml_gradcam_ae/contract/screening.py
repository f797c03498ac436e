"""The gate in front of every defense and of the plain average.

An upload becomes canonical, or it is left out with a reason. Nothing that a client sends may stop the server here, even
if it runs code or raises when it is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median_low
from typing import TYPE_CHECKING

from torch import Tensor, nn

from fedml_gradcam_ae.contract.canonical import UnusableError, canonical_upload, count_problem
from fedml_gradcam_ae.contract.claims import (
    LARGEST_CLAIM,
    LARGEST_WEIGHT,
    counted,
    read_claim,
    sample_problem,
)
from fedml_gradcam_ae.contract.shown import kind
from fedml_gradcam_ae.contract.template import Template

if TYPE_CHECKING:
    from fedml_gradcam_ae.contract.round import Round
    from fedml_gradcam_ae.contract.upload import ClientId


@dataclass(frozen=True)
class Admitted:
    """An upload that passed the gate.

    Attributes:
        upload: the upload in its canonical form.
        samples: the claimed number of samples.
        replaced: names of frozen tensors that differed from the global model's, and now have the global model's values.
    """

    upload: dict[str, Tensor]
    samples: float
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """An upload that cannot be used.

    Attributes:
        reason: why it cannot be used.
    """

    reason: str


@dataclass(frozen=True)
class Screened:
    """A round after the gate.

    Attributes:
        round: the round with canonical uploads only; each claim is what it counts as.
        notes: what was changed in the admitted uploads, one line per change.
    """

    round: Round
    notes: list[str]


def admit(upload: object, samples: object, template: Template) -> Admitted | Rejected:
    """Return the upload in its canonical form, or the reason why it has none. Never raises, whatever is given.

    Args:
        upload: what a client sent as its model.
        samples: what the client sent as its number of samples.
        template: the template of this round. It records the memory of admitted tensors, so that no other upload
            shares it.

    Example:
        >>> import torch
        >>> template = Template.of({"weight": torch.zeros(2)})
        >>> admit({"weight": torch.ones(2)}, 20, template)
        Admitted(upload={'weight': tensor([1., 1.])}, samples=20.0, replaced=())
        >>> admit({"weight": torch.ones(3)}, 20, template)
        Rejected(reason="'weight' must have shape (2,), found (3,)")
    """
    try:
        claim = read_claim(samples)
        if claim is None:
            return Rejected(sample_problem(samples) or "the claimed number of samples cannot be read")
        canonical, replaced = canonical_upload(upload, claim, template)
    except UnusableError as problem:
        return Rejected(str(problem))
    except Exception as error:  # an object from an untrusted client may do anything when it is looked at
        return Rejected(f"it cannot be read: {kind(error)}")
    return Admitted(canonical, claim, replaced)


def upload_problem(upload: object, model: Mapping[str, Tensor], network: nn.Module | None = None) -> str | None:
    """Return why an upload cannot take the place of a model, or None if it can.

    Args:
        upload: anything.
        model: a state dict to compare with.
        network: its architecture; None: unknown.

    Example:
        >>> import torch
        >>> upload_problem({"weight": torch.ones(2)}, {"weight": torch.zeros(2)})
        >>> upload_problem("a text", {"weight": torch.zeros(2)})
        'an upload must be a mapping from names to tensors, found str'
    """
    answer = admit(upload, LARGEST_CLAIM, Template.of(model, network))
    return answer.reason if isinstance(answer, Rejected) else None


def screen(round: Round, largest_weight: float | None = LARGEST_WEIGHT) -> Round:
    """Return the round with canonical uploads only; `rejected` names the other clients, each with the reason.

    Args:
        round: a round whose uploads and claims may be anything.
        largest_weight: the most that a claim may count for, in multiples of the median claim; None: no limit.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae.contract.round import Round
        >>> round = Round(
        ...     number=1,
        ...     client_ids=["a", "b", "c"],
        ...     uploads=[{"weight": torch.ones(1, 1)}, {"weight": torch.ones(1, 1)}, None],
        ...     samples=[20, 1000, 20],
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> usable = screen(round)
        >>> usable.client_ids, usable.samples, list(usable.rejected)
        (['a', 'b'], [20.0, 100.0], ['c'])
    """
    return pass_gate(round, largest_weight).round


def pass_gate(round: Round, largest_weight: float | None = LARGEST_WEIGHT) -> Screened:
    """Return what `screen` returns, with notes about what was changed.

    Args:
        round: a round whose uploads and claims may be anything.
        largest_weight: the most that a claim may count for, in multiples of the median claim; None: no limit.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae.contract.round import Round
        >>> model = {"weight": torch.zeros(1, 1)}
        >>> network = nn.Linear(1, 1, bias=False)
        >>> uploads = [{"weight": torch.ones(1, 1)} for _ in range(2)]
        >>> round = Round(
        ...     number=1,
        ...     client_ids=["a", "b"],
        ...     uploads=uploads,
        ...     samples=[20, 1000],
        ...     global_model=model,
        ...     network=network,
        ...     test_data=[],
        ... )
        >>> pass_gate(round).notes
        ['client b claims 1000 samples: counted as 100, 5 times the median']
    """
    template = Template.of(round.global_model, round.network)
    rejected: dict[ClientId, str] = {}
    admitted: dict[int, Admitted] = {}
    for position, client in enumerate(round.client_ids):
        answer = admit(round.uploads[position], round.samples[position], template)
        if isinstance(answer, Admitted):
            admitted[position] = answer
        else:
            rejected[client] = answer.reason
    weights = _counted(admitted, largest_weight)
    for position, samples in weights.items():
        # The count of batches was checked against the claim. It must fit what the claim counts as, too.
        if samples < admitted[position].samples and (
            problem := count_problem(admitted[position].upload, samples, template)
        ):
            rejected[round.client_ids[position]] = problem
            del admitted[position]
    weights = _counted(admitted, largest_weight)
    clients = [round.client_ids[position] for position in admitted]
    notes = _frozen_notes(clients, list(admitted.values()))
    notes += _claim_notes(clients, [one.samples for one in admitted.values()], list(weights.values()), largest_weight)
    usable = replace(
        round,
        client_ids=clients,
        uploads=[one.upload for one in admitted.values()],
        samples=list(weights.values()),
        rejected={**round.rejected, **rejected},
    )
    return Screened(usable, notes)


def _counted(admitted: Mapping[int, Admitted], largest_weight: float | None) -> dict[int, float]:
    weights = counted([one.samples for one in admitted.values()], largest_weight)
    return dict(zip(admitted, weights, strict=True))


def _frozen_notes(clients: list[ClientId], admitted: list[Admitted]) -> list[str]:
    changed = [(client, one.replaced) for client, one in zip(clients, admitted, strict=True) if one.replaced]
    return [
        f"client {client} changed {len(names)} frozen tensors, the first is {names[0]!r}: they stay as they were"
        for client, names in changed
    ]


def _claim_notes(
    clients: list[ClientId], claims: list[float], weights: list[float], largest_weight: float | None
) -> list[str]:
    """Return one line for all claims that are too large, since very unequal clients have some in every round."""
    cut = [(client, claim) for client, claim, weight in zip(clients, claims, weights, strict=True) if weight < claim]
    if not cut or largest_weight is None:
        return []
    limit = f"counted as {largest_weight * median_low(claims):.6g}, {largest_weight:g} times the median"
    if len(cut) == 1:
        return [f"client {cut[0][0]} claims {cut[0][1]:.6g} samples: {limit}"]
    return [f"{len(cut)} clients claim many samples: {limit}: " + ", ".join(f"{c} ({n:.6g})" for c, n in cut)]
