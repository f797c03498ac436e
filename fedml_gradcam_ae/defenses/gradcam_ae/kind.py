"""The base class of the kinds of evidence, and what a kind finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.gradcam_ae.observed import Observed


class Shown(NamedTuple):
    """The maps that a kind of evidence worked on, for the pictures of the report.

    Attributes:
        deviations: (clients, images, classes, height, width), the autoencoders' input, in units of the MAD.
        reconstructions: the same shape, the autoencoders' output.
    """

    deviations: Tensor
    reconstructions: Tensor


@dataclass(frozen=True, eq=False)
class Finding:
    """What one kind of evidence found in one round.

    Attributes:
        scores: (clients,), in units of the threshold: suspicion begins above 1.
        reasons: one per client, in words; valid where the score is above 1.
        shown: the maps that a picture can show; None: none.
    """

    scores: Tensor
    reasons: Sequence[str]
    shown: Shown | None = None


class Kind:
    """One kind of evidence against clients.

    A subclass has a `name`, a `reason`, and implements `score`. Only kinds that use earlier rounds have a state.
    """

    name: ClassVar[str]
    reason: ClassVar[str]

    def applies(self, observed: Observed, reference: Tensor) -> bool:
        """Return whether the round has what this kind needs; see `score` for the arguments."""
        return True

    def reference(self, observed: Observed) -> Tensor:
        """Return the clients that can be in the reference set, as far as this kind knows, (clients,), bool."""
        return torch.ones(len(observed.clients), dtype=torch.bool, device=observed.changes.device)

    def score(self, observed: Observed, reference: Tensor) -> Tensor | Finding:
        """Score the clients of a round.

        Args:
            observed: the round.
            reference: (clients,), bool: the clients to compare with.

        Returns:
            (clients,), in units of the threshold; or a `Finding`, where the reasons differ between clients.
        """
        raise NotImplementedError

    def find(self, observed: Observed, reference: Tensor) -> Finding:
        """Score the clients of a round, and give the reasons; see `score`."""
        found = self.score(observed, reference)
        return found if isinstance(found, Finding) else Finding(found, [self.reason] * len(found))

    def state(self) -> dict[str, Any]:
        """Return the state to save."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""

    def forget(self, client: ClientId) -> None:
        """Forget what earlier rounds showed of a client."""
