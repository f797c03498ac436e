"""LayerCAM: heat maps in which each position of a feature map is weighted by its own gradient."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.heatmaps.forward import maps_of_one_class, weigh_positions
from fedml_gradcam_ae.networks.evaluating import evaluating
from fedml_gradcam_ae.networks.parallel import on_each_upload


def layer_cam(
    network: nn.Module,
    uploads: Sequence[Upload],
    images: Tensor,
    layer: str,
    labels: Tensor | None = None,
) -> Tensor:
    """Return heat maps L = ReLU(sum_m ReLU(dY^c/dA^m) * A^m), the product position by position.

    Source: Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 2021. On
    uploads: Zheng et al., "A Novel Defense Against Poisoning Attacks on Federated Learning: LayerCAM Augmented with
    Autoencoder", arXiv 2406.02605. `grad_cam` has the mean of dY^c/dA^m over positions, without its ReLU.

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
        Feature maps equal to the image. Two positions count for class 0, the other two for class 1:

        >>> network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> rows = torch.tensor([[2.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 2.0]])
        >>> upload = {"0.weight": torch.ones(1, 1, 1, 1), "2.weight": rows}
        >>> images = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> layer_cam(network, [upload], images, layer="0").tolist()
        [[[[0.0, 0.0], [3.0, 8.0]]]]
        >>> layer_cam(network, [upload], images, layer="0", labels=torch.tensor([0])).tolist()
        [[[[2.0, 2.0], [0.0, 0.0]]]]
    """
    with evaluating(network):
        one = partial(maps_of_one_class, images=images, layer=layer, labels=labels, weigh=weigh_positions)
        maps = torch.stack(on_each_upload(network, uploads, one))
        return maps.to(torch.promote_types(maps.dtype, torch.float32))
