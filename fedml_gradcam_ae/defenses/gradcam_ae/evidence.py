"""The evidence against each client, from one round's uploads and the rounds before.

Source: this project's own; docs/robust.md. Each kind of evidence is in units of its own threshold, so that suspicion
begins above 1, and a client's score is the largest of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.gradcam_ae.copies import Copies, Means
from fedml_gradcam_ae.defenses.gradcam_ae.directions import Disagreement
from fedml_gradcam_ae.defenses.gradcam_ae.kind import Finding, Kind, Shown
from fedml_gradcam_ae.defenses.gradcam_ae.knowledge import Knowledge
from fedml_gradcam_ae.defenses.gradcam_ae.lengths import Lengths
from fedml_gradcam_ae.defenses.gradcam_ae.map_errors import MapErrors
from fedml_gradcam_ae.defenses.gradcam_ae.observed import Observed
from fedml_gradcam_ae.defenses.gradcam_ae.outliers import OutputOutliers, StepOutliers
from fedml_gradcam_ae.defenses.gradcam_ae.relations import Relations
from fedml_gradcam_ae.defenses.gradcam_ae.running_means import RunningMeans


def kinds_of(settings: Any, errors: type[MapErrors] = MapErrors) -> list[Kind]:
    """Return the kinds of evidence of the `robust` profile.

    Args:
        settings: `GradCAMAESettings`, or an object with the same attributes.
        errors: the class of the evidence from reconstruction errors.
    """
    copies = Copies(settings.copy_ratio)
    return [
        copies,
        errors(settings),
        RunningMeans(settings.false_alarm),
        Means(settings.mean_ratio, copies),
        Disagreement(settings.memory, settings.false_alarm),
        Lengths(settings.false_alarm),
        Relations(settings.relation_margin),
        StepOutliers(),
        OutputOutliers(),
        Knowledge(),
    ]


@dataclass(frozen=True, eq=False)
class Findings:
    """The evidence about the clients of a round.

    Attributes:
        scores: (clients,), float64, on the CPU: the largest of `parts`.
        reasons: one per client, of its largest score.
        parts: (clients,) each, by the name of the kind of evidence, for the kinds that apply.
        shown: the maps that a picture can show; zeros where no autoencoder was trained.
    """

    scores: Tensor
    reasons: list[str]
    parts: Mapping[str, Tensor]
    shown: Shown


class Evidence:
    """The scores of the `robust` profile by all kinds of evidence.

    Args:
        kinds: the kinds of evidence, in the order in which the first of equal scores gives the reason.
    """

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self.kinds = kinds

    def judge(self, observed: Observed) -> Findings:
        """Score the clients of a round.

        Args:
            observed: the round, with at least one client.
        """
        everyone = torch.ones(len(observed.clients), dtype=torch.bool, device=observed.changes.device)
        reference = everyone if observed.comparable else ~everyone
        for kind in self.kinds:
            reference = reference & kind.reference(observed)
        found = {kind.name: kind.find(observed, reference) for kind in self.kinds if kind.applies(observed, reference)}
        nothing = Finding(torch.zeros(len(everyone)), [""] * len(everyone))
        scores, reasons = strongest([nothing, *found.values()])
        zeros = torch.zeros_like(observed.changes)
        shown = next((finding.shown for finding in found.values() if finding.shown is not None), Shown(zeros, zeros))
        return Findings(scores, reasons, {name: finding.scores for name, finding in found.items()}, shown)

    def state(self) -> dict[str, Any]:
        """Return the state to save: that of all kinds of evidence."""
        return {key: value for kind in self.kinds for key, value in kind.state().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        for kind in self.kinds:
            kind.restore(state)

    def forget(self, client: ClientId) -> None:
        """Forget what earlier rounds showed of a client."""
        for kind in self.kinds:
            kind.forget(client)


def strongest(findings: Sequence[Finding]) -> tuple[Tensor, list[str]]:
    """Return each client's largest score and its reason.

    Args:
        findings: of the same clients; at a tie the first one gives the reason.

    Returns:
        The largest scores, (clients,), float64, on the CPU, and their reasons.

    Example:
        >>> one, other = Finding(torch.tensor([0.0, 2.0]), ["a", "a"]), Finding(torch.tensor([1.0, 0.0]), ["b", "b"])
        >>> strongest([one, other])
        (tensor([1., 2.], dtype=torch.float64), ['b', 'a'])
    """
    values, which = torch.stack([finding.scores.double().cpu() for finding in findings]).max(dim=0)
    return values, [findings[finding].reasons[client] for client, finding in enumerate(which.tolist())]
