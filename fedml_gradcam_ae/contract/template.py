"""What every upload of a round has to look like, read once from the global model and the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.tied import tied_names
from fedml_gradcam_ae.contract.updates import is_whole

LARGEST_WHOLE = 2**53  # whole numbers beyond it are not exact in float64, in which they are averaged
BATCHES_PER_SAMPLE = 1000  # in one round: epochs, times how often the network uses a layer for each batch


@dataclass(frozen=True)
class Expected:
    """One tensor of the model.

    Attributes:
        like: the global model's.
        frozen: whether no client trains it, so that it stays the global model's.
        same_as: the first name of this tensor, if the network has it under several names.
        lowest: the smallest value that makes sense, None where any does.
        counts: whether it counts batches.
    """

    like: Tensor
    frozen: bool = False
    same_as: str | None = None
    lowest: int | None = None
    counts: bool = False

    @property
    def size(self) -> int:
        """In bytes."""
        return self.like.numel() * self.like.element_size()

    def highest(self, samples: float) -> int:
        """The largest value of a tensor of whole numbers, for a client that claims so many samples."""
        if not self.counts or self.lowest is None:
            return LARGEST_WHOLE
        return min(LARGEST_WHOLE, self.lowest + BATCHES_PER_SAMPLE * max(1, int(samples)))


@dataclass(frozen=True)
class Template:
    """All tensors of the model, in its order.

    Attributes:
        tensors: by name.
        taken: addresses of the memory that is in use already, by the global model and by uploads that were admitted.
    """

    tensors: Mapping[str, Expected]
    taken: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, model: Mapping[str, Tensor], network: nn.Module | None = None) -> Template:
        """The template of a global model.

        Args:
            model: its state dict.
            network: its architecture, which says what is frozen and what is one tensor under two names; where all
                parameters are frozen, none counts as frozen. None: neither is known.
        """
        tied = {} if network is None else tied_names(network)
        parameters = {} if network is None else dict(network.named_parameters())
        frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
        if len(frozen) == len(parameters):
            frozen = set()
        tensors = {
            name: Expected(
                like=tensor,
                # Whole numbers (a table of positions, say) are not trained, and one that is wrong can stop a network.
                frozen=tied.get(name, name) in frozen or (is_whole(tensor) and not _counts(name)),
                same_as=tied.get(name),
                lowest=_lowest(name, tensor),
                counts=_counts(name) and tensor.numel() == 1,
            )
            for name, tensor in model.items()
        }
        taken = {tensor.untyped_storage().data_ptr() for tensor in model.values() if tensor.numel()}
        return cls(tensors, taken)


def _counts(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"


def _lowest(name: str, tensor: Tensor) -> int | None:
    """A variance is not negative; a count of batches does not fall; other whole numbers keep their sign."""
    if tensor.dtype == torch.bool or tensor.is_complex() or not tensor.numel():
        return None
    if tensor.is_floating_point():
        return 0 if name.rpartition(".")[2] == "running_var" else None
    least = int(tensor.min())
    if _counts(name):
        return least
    return 0 if least >= 0 else -LARGEST_WHOLE
