"""How far one upload may move each tensor of the model, whatever a rule thinks of the upload as a whole.

A rule judges uploads by what it looks at: distances over all parameters, heat maps, signs. One number that none of them
shows (the bias of one class, a running variance) can be worth any value. So what a rule keeps is averaged with every
tensor's change no longer than so many times the round's median length of that change:

    w_g,T + f_i,T (w_i,T - w_g,T),  f_i,T = min(1, l_i median_j ||u_j,T|| / ||u_i,T||)

for each floating-point tensor T, BatchNorm's statistics included. How far a single tensor may go depends on the
client's others, since a client with many or unusual data moves all of them further. With r_i,T = ||u_i,T|| over the
median, and s_i the samples that the client counts for in units of the median claim,

    l_i = min(largest_step, max(1, median_T r_i,T) max(1, 3 / max(1, s_i))),

so that a client cannot multiply a long tensor by a large claim. The result lies between the global model's tensor and
the upload's, so a variance stays at least 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.claims import lower_median as median_claim
from fedml_gradcam_ae.contract.updates import Updates
from fedml_gradcam_ae.contract.upload import Upload

LONE = 3.0  # how much further than the client's other tensors one may go; honest ones went 2.4 times as far


@dataclass(frozen=True)
class Steps:
    """How far each upload moves each tensor.

    Attributes:
        names: the floating-point tensors of the model.
        lengths: (clients, tensors), float64, on the CPU: ||u_i,T||, infinite where float64 overflows.
        usual: (tensors,), float64: the median of each column over all usable uploads of the round.
        claims: (clients,), float64: the samples that each counts for, in units of the median claim.
    """

    names: Sequence[str]
    lengths: Tensor
    usual: Tensor
    claims: Tensor

    @classmethod
    def of(cls, uploads: Sequence[Upload], center: Mapping[str, Tensor], samples: Sequence[float]) -> Steps:
        """The steps from the model `center` to each upload, at least one.

        A tensor in which the center holds infinity, such as a mask, has no length; the gate has seen that it stays.
        """
        names = [
            name
            for name, tensor in center.items()
            if tensor.is_floating_point() and tensor.numel() and bool(tensor.isfinite().all())
        ]
        lengths = Updates(uploads, center, names).lengths()
        claims = torch.tensor([float(count) for count in samples], dtype=torch.float64)
        return cls(names, lengths, lower_median(lengths), claims / median_claim(samples))

    def only(self, positions: Sequence[int]) -> Steps:
        """Those of some uploads; what is usual stays that of all."""
        return Steps(self.names, self.lengths[list(positions)], self.usual, self.claims[list(positions)])

    @property
    def ratios(self) -> Tensor:
        """r_i,T, (clients, tensors), of the tensors that most clients move; 0 for the others."""
        moved = self.usual > 0
        return torch.where(moved, self.lengths / self.usual, 0.0).nan_to_num(0.0, posinf=torch.finfo(torch.float64).max)

    @property
    def proportions(self) -> Tensor:
        """max(1, median_T r_i,T), (clients,): how much further than usual a client's tensors go as a whole."""
        moved = self.usual > 0
        if not bool(moved.any()):
            return torch.ones(len(self.lengths), dtype=torch.float64)
        return lower_median(self.ratios[:, moved].T).clamp(min=1)

    def factors(self, largest_step: float) -> Tensor:
        """f_i,T, (clients, tensors): what each change has to be multiplied by.

        >>> lengths = torch.tensor([[1.0, 0.0], [2.0, 0.0], [100.0, 3.0]], dtype=torch.float64)
        >>> claims = torch.ones(3, dtype=torch.float64)
        >>> Steps(["weight", "bias"], lengths, lower_median(lengths), claims).factors(10.0)
        tensor([[1.0000, 1.0000],
                [1.0000, 1.0000],
                [0.2000, 0.0000]], dtype=torch.float64)
        """
        alone = (LONE / self.claims.clamp(min=1)).clamp(min=1)
        limits = (self.proportions * alone).clamp(max=largest_step)[:, None] * self.usual
        return torch.where(self.lengths > limits, limits / self.lengths, torch.ones_like(self.lengths))


def lower_median(values: Tensor) -> Tensor:
    """The median of each column, the lower of the two middle values where there are two.

    A value that at most half of the clients exceed, and that of an honest one unless half of them lie. The mean of the
    two middle values would let one client of two decide alone how far it may go.

    Args:
        values: (clients, columns), at least one client.
    """
    return values.sort(dim=0).values[(len(values) - 1) // 2]


def bounded(
    uploads: Sequence[Upload], center: Mapping[str, Tensor], names: Sequence[str], factors: Tensor
) -> list[Upload]:
    """The uploads with each tensor pulled toward the center; what needs no change is the very same object.

    Args:
        uploads: state dicts.
        center: the global model.
        names: the tensors that may change.
        factors: (clients, names), in [0, 1].
    """
    return [
        upload if all(factor == 1 for factor in row) else _pulled(upload, center, dict(zip(names, row, strict=True)))
        for upload, row in zip(uploads, factors.tolist(), strict=True)
    ]


def _pulled(upload: Upload, center: Mapping[str, Tensor], factors: Mapping[str, float]) -> Upload:
    pulled = dict(upload)
    for name, factor in factors.items():
        if factor < 1:
            # Both weights are at least 0, and nothing overflows on the way from one to the other.
            here = center[name].double() * (1 - factor)
            pulled[name] = here.add_(upload[name].double(), alpha=factor).to(upload[name].dtype)
    return pulled
