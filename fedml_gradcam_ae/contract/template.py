"""The template of a round: what every upload must look like, read once from the global model and the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.tied import tied_names
from fedml_gradcam_ae.contract.updates import is_whole

LARGEST_WHOLE = 2**53  # larger whole numbers are not exact in float64, in which they are averaged
# The most batches per claimed sample that BatchNorm may count in one round: the number of epochs, times how often the
# network uses a layer for each batch.
BATCHES_PER_SAMPLE = 1000


@dataclass(frozen=True)
class Expected:
    """What is expected of one tensor of the model.

    Attributes:
        like: the global model's tensor.
        frozen: True if no client trains it, so that it stays the global model's.
        same_as: the first name of this tensor, if the network has it under several names.
        lowest: the smallest valid value; None where any value is valid.
        counts: True if it counts batches.
    """

    like: Tensor
    frozen: bool = False
    same_as: str | None = None
    lowest: int | None = None
    counts: bool = False

    @property
    def size(self) -> int:
        """The size of the tensor in bytes."""
        return self.like.numel() * self.like.element_size()

    def highest(self, samples: float) -> int:
        """Return the largest valid value of a tensor of whole numbers.

        Args:
            samples: the number of samples that the client claims, which limits a count of batches.

        Example:
            >>> Expected(torch.tensor(5), lowest=5, counts=True).highest(samples=2)
            2005
        """
        if not self.counts or self.lowest is None:
            return LARGEST_WHOLE
        return min(LARGEST_WHOLE, self.lowest + BATCHES_PER_SAMPLE * max(1, int(samples)))


@dataclass(frozen=True)
class Template:
    """What is expected of all tensors of the model, in the model's order.

    Attributes:
        tensors: what is expected of each tensor, by name.
        taken: addresses of the memory in use by the global model and by the uploads admitted so far.
    """

    tensors: Mapping[str, Expected]
    taken: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, model: Mapping[str, Tensor], network: nn.Module | None = None) -> Template:
        """Return the template of a global model.

        Args:
            model: its state dict.
            network: its architecture, which determines the frozen parameters and the tensors with two names. If all
                parameters are frozen, none counts as frozen. None: neither is known.

        Example:
            >>> network = nn.Linear(1, 1)
            >>> network.bias.requires_grad = False
            >>> template = Template.of(network.state_dict(), network)
            >>> {name: expected.frozen for name, expected in template.tensors.items()}
            {'weight': False, 'bias': True}
        """
        tied = {} if network is None else tied_names(network)
        tied = {name: first for name, first in tied.items() if first in model}
        parameters = {} if network is None else dict(network.named_parameters())
        frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
        if len(frozen) == len(parameters):
            frozen = set()
        tensors = {
            name: Expected(
                like=tensor,
                frozen=tied.get(name, name) in frozen or _is_no_weight(name, tensor),
                same_as=tied.get(name),
                lowest=_lowest(name, tensor),
                counts=_counts(name) and tensor.numel() == 1,
            )
            for name, tensor in model.items()
        }
        taken = {tensor.untyped_storage().data_ptr() for tensor in model.values() if tensor.numel()}
        return cls(tensors, taken)


def _is_no_weight(name: str, tensor: Tensor) -> bool:
    """Return whether a tensor is certainly not trained.

    Whole numbers (a table of positions, for example) are not, and a wrong one can make a network fail. Nor is a tensor
    with infinity or NaN (a mask), whose changes have no length that could be bounded.
    """
    if is_whole(tensor):
        return not _counts(name)
    return tensor.is_floating_point() and not bool(tensor.isfinite().all())


def _counts(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"


def _lowest(name: str, tensor: Tensor) -> int | None:
    """Return the smallest valid value of a tensor, or None.

    A variance is not negative, a count of batches does not fall, and other whole numbers keep their sign.
    """
    if tensor.dtype == torch.bool or tensor.is_complex() or not tensor.numel():
        return None
    if tensor.is_floating_point():
        return 0 if name.rpartition(".")[2] == "running_var" else None
    least = int(tensor.min())
    if _counts(name):
        return least
    return 0 if least >= 0 else -LARGEST_WHOLE
