"""LASA: sparsify each update, and average each layer over the clients whose norm and signs are usual there.

Source: Xu, Zhang and Hu, "Achieving Byzantine-Resilient Federated Learning via Layer-Adaptive Sparsified Model
Aggregation", WACV 2025, arXiv 2409.01435. As in the published code, the average is over the sparsified updates, every
tensor of the state dict is a layer, and a layer in which no client passes is averaged over all of them.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.updates import Updates, weighted_mean
from fedml_gradcam_ae.defenses.shared.clipped_mean import clip_factors
from fedml_gradcam_ae.defenses.shared.magnitudes import kth_largest
from fedml_gradcam_ae.maths.median_z_scores import median_z_scores
from fedml_gradcam_ae.maths.order_statistics import median


@register_defense("lasa")
class LASA(Defense):
    """The mean, layer by layer, of the sparsified updates that are usual in the layer.

    The updates are clipped to their median length. Of each client's weights in convolutions and linear layers, the
    smallest changes (a share `sparsity` of them, over all these layers together) are set to 0. In each layer a client
    is kept if the norm of its change is less than `norm_radius` standard deviations from the median norm, and the share
    of positive signs less than `sign_radius` from the median share. The kept changes are averaged without weights. Of
    fewer than three clients none is left out.

    A layer is a tensor: a weight, a bias, or a running statistic of BatchNorm. A client is flagged if it is left out of
    all layers.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.lasa import LASA
        >>> updates = ([1.0, 0.9, 0.1], [0.9, 1.0, 0.1], [1.0, 0.9, 0.1], [0.9, 1.0, -0.1], [-1.0, -0.9, 0.1])
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([update])} for update in updates],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(1, 3)},
        ...     network=torch.nn.Linear(3, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = LASA(LASA.Settings()).judge(round)
        >>> verdict.excluded
        [False, False, False, False, True]
        >>> verdict.model  # the third coordinate is everybody's smallest
        {'weight': tensor([[0.9500, 0.9500, 0.0000]])}
    """

    class Settings(DefenseSettings):
        """The settings of LASA; the defaults are those of the paper."""

        sparsity: float = Field(
            default=0.3, ge=0, lt=1, description="the share of changes, the smallest of a client, that are set to 0"
        )
        norm_radius: float = Field(
            default=2.0, gt=0, description="lambda_n: how far from the median a kept norm is (deviations)"
        )
        sign_radius: float = Field(
            default=1.0, gt=0, description="lambda_s: how far from the median a kept share of signs is (deviations)"
        )

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """Clip and sparsify the updates, and filter and average them layer by layer.

        The score is the share of the layers that a client is left out of.
        """
        settings, updates, kept = self.settings, round.updates, round.bounded.updates
        norms = updates.squared_norms.sqrt()
        factors = clip_factors(norms, float(median(norms)))
        smallest = smallest_kept(updates, settings.sparsity)
        rest = {name: tensor for name, tensor in updates.center.items() if not tensor.is_floating_point()}
        layers = [name for name in updates.center if name not in rest and name not in updates.tied]
        model = dict(updates.center)
        left_out = torch.zeros(len(norms), dtype=torch.float64)
        for name in layers:
            cut = smallest if name in updates.names and updates.center[name].dim() in (2, 4) else None
            sizes, signs = layer_features(layer_of(updates, name), factors, cut)
            usual = (median_z_scores(sizes) < settings.norm_radius) & (median_z_scores(signs) < settings.sign_radius)
            if not bool(usual.any()):
                usual = torch.ones_like(usual)
            model[name] = layer_mean(layer_of(kept, name), layer_of(updates, name), factors * usual / usual.sum(), cut)
            left_out += (~usual).cpu() / len(layers)
        model |= weighted_mean(round.bounded.uploads, [1 / len(norms)] * len(norms), list(rest))
        # The changes were added in float64. As an update of weight 1 they become a model of the global model's types.
        whole = Updates([model], updates.center, layers, tied=updates.tied).combine(torch.ones(1))
        excluded = [math.isclose(share, 1) for share in left_out.tolist()]
        return Verdict(flagged=excluded, excluded=excluded, scores=left_out.tolist(), model=whole)


def layer_of(updates: Updates, name: str) -> Updates:
    """Return the updates, restricted to one tensor.

    Args:
        updates: the updates.
        name: the tensor, trained or not.
    """
    return Updates(updates.uploads, updates.center, [name], updates.mixing)


def smallest_kept(updates: Updates, sparsity: float) -> Tensor:
    """Return the smallest absolute change of a weight that each client keeps, (clients,), float64.

    Args:
        updates: the updates; weights are their tensors of two and of four dimensions.
        sparsity: the share of each client's changes that are not kept.
    """
    weights = [name for name in updates.names if updates.center[name].dim() in (2, 4)]
    chosen = Updates(updates.uploads, updates.center, weights, updates.mixing)
    count = int(chosen.size * (1 - sparsity))
    if sparsity == 0 or count == 0:
        return torch.zeros(len(updates), dtype=torch.float64, device=updates.gram.device)
    return kth_largest(chosen, count)


def layer_features(layer: Updates, factors: Tensor, smallest: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the norms of a layer's sparsified changes, and the shares of positive numbers among those not 0.

    Args:
        layer: the changes of one tensor.
        factors: (clients,), which clip the updates.
        smallest: (clients,), what is smaller in absolute value becomes 0; None: nothing does.

    Returns:
        (clients,) each, float64; the share is 0.5 where all numbers are 0.

    Example:
        >>> layer = Updates([{"w": torch.tensor([3.0, -4.0, 1.0])}], {"w": torch.zeros(3)}, ["w"])
        >>> layer_features(layer, torch.tensor([0.5]), torch.tensor([2.0]))
        (tensor([2.5000], dtype=torch.float64), tensor([0.5000], dtype=torch.float64))
    """
    squares, signs, counted = torch.zeros(3, len(layer), dtype=torch.float64, device=factors.device)
    for block in layer.blocks(reuse_buffer=True):
        sparsify(block, block, smallest)
        squares += block.square().sum(dim=1)
        block.sign_()
        signs += block.sum(dim=1)
        counted += block.abs_().sum(dim=1)
    return factors * squares.sqrt(), (1 + signs / counted.clamp(min=1)) / 2


def layer_mean(layer: Updates, judged: Updates, coefficients: Tensor, smallest: Tensor | None) -> Tensor:
    """Return a layer of the new model, w_g + sum_i c_i u_i with sparsified u_i, float64.

    Args:
        layer: the changes of one tensor that are averaged.
        judged: the changes by whose size the averaged ones are sparsified.
        coefficients: (clients,), c.
        smallest: (clients,), what is smaller in absolute value becomes 0; None: nothing does.
    """
    center = layer.center[layer.names[0]]
    pieces = []
    for block, sizes in zip(layer.blocks(reuse_buffer=True), judged.blocks(reuse_buffer=True), strict=True):
        sparsify(block, sizes, smallest)
        pieces.append(coefficients @ block)
    change = torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.float64, device=center.device)
    return center.double() + change.view(center.shape)


def sparsify(block: Tensor, sizes: Tensor, smallest: Tensor | None) -> None:
    """Set the numbers of a block to 0 where others are small, in place.

    Args:
        block: (clients, columns).
        sizes: (clients, columns), whose absolute values decide.
        smallest: (clients,), the smallest that is kept; None: all are.
    """
    if smallest is not None:
        block.masked_fill_(sizes.abs() < smallest[:, None], 0)
