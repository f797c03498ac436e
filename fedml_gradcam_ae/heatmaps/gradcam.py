"""Grad-CAM: the maps of K uploads on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.heatmaps.forward import maps_of_one_class, weigh
from fedml_gradcam_ae.networks.evaluating import evaluating
from fedml_gradcam_ae.networks.parallel import on_each_upload


def grad_cam(
    network: nn.Module,
    uploads: Sequence[Upload],
    images: Tensor,
    layer: str,
    labels: Tensor | None = None,
) -> Tensor:
    """Return heat maps L = ReLU(sum_m alpha_m A^m), alpha_m = mean over positions of dY^c/dA^m.

    Source: the paper's (11) and (12); A^m are the feature maps of `layer`, Y^c is the score of class c before softmax.
    The uploads are never copied into the network: `answer` runs it on each upload's tensors. All parameters are
    constants there, so the gradient is computed only from the scores down to `layer`.

    Args:
        network: the architecture; its own weights are not used. It is run in eval mode.
        uploads: K state dicts that fit the network.
        images: (images, channels, height, width), on the network's device.
        layer: dotted name of a module that runs once and returns feature maps or tokens.
        labels: (images,), the class c of each image; None takes each upload's own arg-max class.

    Returns:
        (clients, images, height, width), on the network's device, float32 for a network in half precision; NaN or
        infinity where an upload's arithmetic overflows.

    Example:
        Feature maps equal to the image, and two uploads that predict class 0 and class 1:

        >>> network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> rows = torch.tensor([[1.0], [-1.0]]).expand(2, 4)
        >>> uploads = [{"0.weight": torch.ones(1, 1, 1, 1), "2.weight": rows * scale} for scale in (1.0, -2.0)]
        >>> images = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> grad_cam(network, uploads, images, layer="0").tolist()
        [[[[1.0, 2.0], [3.0, 4.0]]], [[[2.0, 4.0], [6.0, 8.0]]]]
        >>> grad_cam(network, uploads, images, layer="0", labels=torch.tensor([0])).tolist()
        [[[[1.0, 2.0], [3.0, 4.0]]], [[[0.0, 0.0], [0.0, 0.0]]]]
    """
    with evaluating(network):
        one = partial(maps_of_one_class, images=images, layer=layer, labels=labels, weigh=weigh)
        maps = torch.stack(on_each_upload(network, uploads, one))
        return maps.to(torch.promote_types(maps.dtype, torch.float32))
