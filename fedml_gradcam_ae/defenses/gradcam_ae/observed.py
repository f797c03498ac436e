"""The input of all kinds of evidence: what the server observes of the clients of one round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.bounding import Steps
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import (
    differences,
    distance_ratios,
    effective_dimensions,
    layer_deviations,
)
from fedml_gradcam_ae.networks.batchnorm import Statistics

FEWEST = 4  # With fewer clients to compare with, no client is judged: their median and MAD are too uncertain.


@dataclass(frozen=True)
class Maps:
    """The signed heat maps of all classes, of the uploads and of the global model on the same images.

    Attributes:
        uploads: (clients, images, classes, height, width).
        reference: (images, classes, height, width), of the global model.
    """

    uploads: Tensor
    reference: Tensor

    @property
    def finite(self) -> Tensor:
        """Whether each upload's maps are finite, (clients,), bool."""
        return torch.isfinite(self.uploads).flatten(1).all(dim=1)

    @property
    def comparable(self) -> bool:
        """Whether the global model's own maps are finite."""
        return bool(torch.isfinite(self.reference).all())

    def only(self, clients: Tensor) -> Maps:
        """Return the maps of the clients selected by a mask (clients,), bool."""
        return Maps(self.uploads[clients], self.reference)

    def changes(self) -> Tensor:
        """Return the differences between the uploads' maps and the global model's; see `suspicion.differences`."""
        return differences(self.uploads, self.reference)


@dataclass(frozen=True, eq=False)
class Directions:
    """Where the clients of a round moved their models to.

    Attributes:
        updates: (clients, clients), the inner products of the updates.
        labels: (clients, clients), those of what the output layers show of the clients' labels.
    """

    updates: Tensor
    labels: Tensor

    def only(self, clients: Tensor) -> Directions:
        """Return those of some clients: a mask (clients,), bool, or positions."""
        return Directions(self.updates.cpu()[clients][:, clients], self.labels.cpu()[clients][:, clients])


@dataclass(frozen=True)
class Models:
    """What is measured without heat maps, for all clients of a round.

    Attributes:
        outputs: (1 + clients, images, classes), the class scores on the probe images, the global model's first.
        steps: the lengths of the changes of each tensor.
        judged: (clients,), bool, on the CPU: the clients with finite maps, which `Observed.clients` lists.
        directions: of the updates; None: not measured.
        discriminations: (1 + clients,), float64, on the CPU, of the global model first; None: not measured.
    """

    outputs: Tensor
    steps: Steps
    judged: Tensor
    directions: Directions | None = None
    discriminations: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Observed:
    """What the server observes of the clients of one round.

    Attributes:
        number: the round, from 1.
        clients: the clients' ids.
        samples: the number of samples that each client claims.
        maps: finite maps with several positions.
        statistics: BatchNorm's statistics; None: not measured, since the network has no BatchNorm.
        models: what is measured without heat maps; None: not measured.
    """

    number: int
    clients: Sequence[ClientId]
    samples: Sequence[float]
    maps: Maps
    statistics: Statistics | None = None
    models: Models | None = None

    @cached_property
    def changes(self) -> Tensor:
        """The changes of the maps, (clients, images, classes, height, width), float64."""
        return self.maps.changes()

    @cached_property
    def ratios(self) -> Tensor:
        """The distances between the changes of maps, (clients, clients); see `suspicion.distance_ratios`."""
        if len(self.clients) == 1:
            return self.changes.new_full((1, 1), torch.inf)
        return distance_ratios(self.changes.flatten(1))

    @cached_property
    def dimensions(self) -> float:
        """In how many directions the clients' changes of the maps differ; see `suspicion.effective_dimensions`."""
        return effective_dimensions(self.changes.flatten(1))

    @cached_property
    def directions(self) -> Directions | None:
        """Where the listed clients moved their models to; None: not measured."""
        measured = None if self.models is None else self.models.directions
        return None if self.models is None or measured is None else measured.only(self.models.judged)

    @cached_property
    def mean_ratios(self) -> Tensor:
        """The distances between the channel means, (clients, clients); see `suspicion.distance_ratios`."""
        assert self.statistics is not None
        return distance_ratios(layer_deviations(self.statistics.measured, self.statistics.layers))

    @property
    def comparable(self) -> bool:
        """Whether there are enough clients whose maps can be compared with those of the others.

        The ratio is infinite where a client's median distance to the others is 0.
        """
        return int(torch.isfinite(self.ratios.min(dim=1).values).sum()) >= FEWEST
