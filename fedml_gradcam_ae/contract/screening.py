"""The gate in front of every rule and of the plain average: an upload becomes canonical, or is left out with a reason.

Nothing that a client sends may stop the server here, whatever it does when it is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from fedml_gradcam_ae.contract.canonical import UnusableError, canonical_upload, count_problem
from fedml_gradcam_ae.contract.claims import (
    LARGEST_CLAIM,
    LARGEST_WEIGHT,
    counted,
    lower_median,
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
    """An upload that passed.

    Attributes:
        upload: it, in its canonical form.
        samples: the claimed number of samples.
        replaced: names of frozen tensors in which it differed from the global model, whose values they have now.
    """

    upload: dict[str, Tensor]
    samples: float
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """An upload that cannot be used, and why."""

    reason: str


@dataclass(frozen=True)
class Screened:
    """A round behind the gate.

    Attributes:
        round: with canonical uploads alone; each claim is what it counts as.
        notes: what was changed in those that passed, in a line each.
    """

    round: Round
    notes: list[str]


def admit(upload: object, samples: object, template: Template) -> Admitted | Rejected:
    """Make an upload canonical, or say why that cannot be done; never raises, whatever is given.

    Args:
        upload: what a client sent as its model.
        samples: what it sent as its number of samples.
        template: of this round; it notes the memory of what is admitted, so that no other upload shares it.
    """
    try:
        claim = read_claim(samples)
        if claim is None:
            return Rejected(sample_problem(samples) or "the claimed number of samples cannot be read")
        canonical, replaced = canonical_upload(upload, claim, template)
    except UnusableError as problem:
        return Rejected(str(problem))
    except Exception as error:  # an object of a stranger's may do anything when it is looked at
        return Rejected(f"it cannot be read: {kind(error)}")
    return Admitted(canonical, claim, replaced)


def upload_problem(upload: object, model: Mapping[str, Tensor], network: nn.Module | None = None) -> str | None:
    """Why an upload cannot stand for a model like this one, or None if it can."""
    answer = admit(upload, LARGEST_CLAIM, Template.of(model, network))
    return answer.reason if isinstance(answer, Rejected) else None


def screen(round: Round, largest_weight: float | None = LARGEST_WEIGHT) -> Round:
    """The round with canonical uploads alone; the others are named, with the reason, in `rejected`.

    Args:
        round: its uploads and claims may be anything.
        largest_weight: how many times the median claim a claim counts for at most; None: no limit.
    """
    return pass_gate(round, largest_weight).round


def pass_gate(round: Round, largest_weight: float | None = LARGEST_WEIGHT) -> Screened:
    """The same, with notes about what was changed."""
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
        # A large claim must not excuse a count of batches that the samples which count do not.
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
    """One line, however many claims are too large: with very unequal clients that is so every round."""
    cut = [(client, claim) for client, claim, weight in zip(clients, claims, weights, strict=True) if weight < claim]
    if not cut or largest_weight is None:
        return []
    limit = f"counted as {largest_weight * lower_median(claims):.6g}, {largest_weight:g} times the median"
    if len(cut) == 1:
        return [f"client {cut[0][0]} claims {cut[0][1]:.6g} samples: {limit}"]
    return [f"{len(cut)} clients claim many samples: {limit}: " + ", ".join(f"{c} ({n:.6g})" for c, n in cut)]
