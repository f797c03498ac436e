"""A bound on how far one upload may move each tensor of the model, whatever a defense thinks of the whole upload.

A defense judges uploads by certain features: distances over all parameters, heat maps, signs. A single number that
shows in none of them (the bias of one class, a running variance) could take any value. So in the uploads that a defense
keeps, the change of each tensor is shortened to a multiple of the round's median length of that change:

    w_g,T + f_i,T (w_i,T - w_g,T),  f_i,T = min(1, l_i median_j ||u_j,T|| / ||u_i,T||)

for each floating-point tensor T, BatchNorm's statistics included. The limit l_i depends on the client's other tensors,
since a client with many or unusual data moves all of them further. With r_i,T = ||u_i,T|| / median_j ||u_j,T||, and s_i
the samples that the client counts for in units of the median claim,

    l_i = min(largest_step, max(1, median_T r_i,T) max(1, 3 / max(1, s_i))).

The last factor shrinks with the claim, so that a client cannot multiply a long tensor by a large claim. The result lies
between the global model's tensor and the upload's, so a variance stays at least 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.updates import Updates
from fedml_gradcam_ae.contract.upload import Upload

# The 3 in l_i: the largest ratio of one tensor to the median ratio of the client's tensors. Benign clients reached 2.4.
LONE = 3.0


@dataclass(frozen=True)
class Steps:
    """The length of each upload's change of each tensor.

    Attributes:
        names: the floating-point tensors of the model.
        lengths: (clients, tensors), float64, on the CPU: ||u_i,T||, infinite where float64 overflows.
        usual: (tensors,), float64: the median of each column over all usable uploads of the round.
        claims: (clients,), float64: the samples that each client counts for, in units of the median claim.
    """

    names: Sequence[str]
    lengths: Tensor
    usual: Tensor
    claims: Tensor

    @classmethod
    def of(cls, uploads: Sequence[Upload], center: Mapping[str, Tensor], samples: Sequence[float]) -> Steps:
        """Return the steps from the model `center` to each upload.

        Tensors in which the center holds infinity or NaN, such as a mask, are left out: their change has no length.

        Args:
            uploads: state dicts, at least one.
            center: the global model.
            samples: the number of samples that each client counts for.

        Example:
            >>> center = {"weight": torch.zeros(2)}
            >>> uploads = [{"weight": torch.tensor(value)} for value in ([0.0, 1.0], [2.0, 0.0], [3.0, 4.0])]
            >>> steps = Steps.of(uploads, center, samples=[10, 20, 40])
            >>> steps.lengths[:, 0].tolist(), steps.usual.tolist(), steps.claims.tolist()
            ([1.0, 2.0, 5.0], [2.0], [0.5, 1.0, 2.0])
        """
        names = [
            name
            for name, tensor in center.items()
            if tensor.is_floating_point() and tensor.numel() and bool(tensor.isfinite().all())
        ]
        lengths = Updates(uploads, center, names).lengths()
        claims = torch.tensor([float(count) for count in samples], dtype=torch.float64)
        return cls(names, lengths, lower_median(lengths), claims / median_low(samples))

    def only(self, positions: Sequence[int]) -> Steps:
        """Return the steps of some uploads; `usual` stays the median over all uploads.

        Args:
            positions: rows of `lengths`.

        Example:
            >>> lengths = torch.tensor([[1.0], [2.0], [5.0]])
            >>> some = Steps(["weight"], lengths, lower_median(lengths), torch.ones(3)).only([2])
            >>> some.lengths.tolist(), some.usual.tolist()
            ([[5.0]], [2.0])
        """
        return Steps(self.names, self.lengths[list(positions)], self.usual, self.claims[list(positions)])

    @property
    def ratios(self) -> Tensor:
        """The ratios r_i,T, (clients, tensors); 0 for tensors whose median change is 0."""
        moved = self.usual > 0
        return torch.where(moved, self.lengths / self.usual, 0.0).nan_to_num(0.0, posinf=torch.finfo(torch.float64).max)

    @property
    def proportions(self) -> Tensor:
        """The ratio of a client's tensors as a whole, max(1, median_T r_i,T), (clients,).

        Tensors whose median change is 0 do not count.
        Example:
            >>> lengths = torch.tensor([[1.0, 1.0], [1.0, 1.0], [4.0, 6.0]], dtype=torch.float64)
            >>> Steps(["weight", "bias"], lengths, lower_median(lengths), torch.ones(3)).proportions.tolist()
            [1.0, 1.0, 4.0]
        """
        moved = self.usual > 0
        if not bool(moved.any()):
            return torch.ones(len(self.lengths), dtype=torch.float64)
        return lower_median(self.ratios[:, moved].T).clamp(min=1)

    def factors(self, largest_step: float) -> Tensor:
        """Return the factor f_i,T of each change, (clients, tensors), in [0, 1].

        Args:
            largest_step: the largest limit l_i, in units of the median length.

        Example:
            The second tensor has a median change of 0, so it must not move at all.

            >>> lengths = torch.tensor([[1.0, 0.0], [2.0, 0.0], [100.0, 3.0]], dtype=torch.float64)
            >>> claims = torch.ones(3, dtype=torch.float64)
            >>> Steps(["weight", "bias"], lengths, lower_median(lengths), claims).factors(largest_step=10.0)
            tensor([[1.0000, 1.0000],
                    [1.0000, 1.0000],
                    [0.2000, 0.0000]], dtype=torch.float64)
        """
        alone = (LONE / self.claims.clamp(min=1)).clamp(min=1)
        limits = (self.proportions * alone).clamp(max=largest_step)[:, None] * self.usual
        return torch.where(self.lengths > limits, limits / self.lengths, torch.ones_like(self.lengths))


def lower_median(values: Tensor) -> Tensor:
    """Return the median of each column, the lower of the two middle values where there are two.

    At most half of the clients exceed this value. It is at most that of a benign client unless half of the clients
    are malicious. The mean of the two middle values would let one client of two decide alone how far it may go.

    Args:
        values: (clients, columns), at least one client.

    Returns:
        (columns,).

    Example:
        >>> lower_median(torch.tensor([[1.0, 7.0], [100.0, 5.0]]))
        tensor([1., 5.])
    """
    return values.sort(dim=0).values[(len(values) - 1) // 2]


def bounded(
    uploads: Sequence[Upload], center: Mapping[str, Tensor], names: Sequence[str], factors: Tensor
) -> list[Upload]:
    """Return the uploads with each tensor pulled toward the center by its factor.

    Args:
        uploads: state dicts.
        center: the global model.
        names: the tensors that may change.
        factors: (clients, names), in [0, 1].

    Returns:
        One state dict per upload; the very same object where all factors are 1.

    Example:
        >>> center = {"bias": torch.tensor([1.0])}
        >>> uploads = [{"bias": torch.tensor([2.0])}, {"bias": torch.tensor([11.0])}]
        >>> bounded(uploads, center, ["bias"], torch.tensor([[1.0], [0.5]]))
        [{'bias': tensor([2.])}, {'bias': tensor([6.])}]
    """
    return [
        upload if all(factor == 1 for factor in row) else _pulled(upload, center, dict(zip(names, row, strict=True)))
        for upload, row in zip(uploads, factors.tolist(), strict=True)
    ]


def _pulled(upload: Upload, center: Mapping[str, Tensor], factors: Mapping[str, float]) -> Upload:
    pulled = dict(upload)
    for name, factor in factors.items():
        if factor < 1:
            # A mean with weights of at least 0: unlike center + factor * (upload - center), it cannot overflow.
            here = center[name].double() * (1 - factor)
            pulled[name] = here.add_(upload[name].double(), alpha=factor).to(upload[name].dtype)
    return pulled
