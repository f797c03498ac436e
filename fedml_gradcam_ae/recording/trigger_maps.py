"""What models look at in an image without and with a backdoor's trigger: the heat maps of their own answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.heatmaps import find_target_layer, grad_cam, resize
from fedml_gradcam_ae.networks.evaluating import answer, constants, evaluating
from fedml_gradcam_ae.recording.events import Triggered

MOST = 4  # the number of attackers, and of honest clients, that are shown
SMALLEST_MAP, LARGEST_IMAGE = 7, 512  # images are enlarged until their maps have 7 x 7 positions, as at 224 pixels


@dataclass(frozen=True)
class Shown:
    """The maps of one model.

    Attributes:
        name: of the model.
        malicious: whether it is an attacker's upload.
        classes: the class that the model answers with, for the image without and with the trigger.
        maps: (2, height, width), the heat maps of these classes, 0 where nothing speaks for them.
    """

    name: str
    malicious: bool
    classes: tuple[int, int]
    maps: Tensor


@dataclass(frozen=True)
class TriggerMaps:
    """An image without and with a trigger, and what the models of a round look at in it.

    Attributes:
        number: the round, counted from 1.
        images: (2, channels, height, width).
        label: the class of the image.
        target: the class that the attackers want for the image with the trigger.
        models: the global model before the round, then attackers, then honest clients.
    """

    number: int
    images: Tensor
    label: int
    target: int
    models: list[Shown]


def trigger_maps(event: Triggered) -> TriggerMaps | None:
    """Return the heat maps of the global model, of some attackers and of some honest clients.

    Each map explains the class that the model itself answers with. The images are enlarged so that maps have several
    positions, unless the network takes only images of its own size.

    Args:
        event: the image and the models.

    Returns:
        The maps; None if the network has no feature maps to draw.

    Example:
        A bright corner as the trigger of class 1, which the upload of client 3 has learned:

        >>> network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> honest = {"0.weight": torch.ones(1, 1, 1, 1), "2.weight": torch.tensor([[1.0] * 4, [-1.0] * 4])}
        >>> poisoned = {**honest, "2.weight": torch.tensor([[1.0, 1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 4.0]])}
        >>> images = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
        >>> event = Triggered(
        ...     number=1,
        ...     network=network,
        ...     images=images,
        ...     label=0,
        ...     target=1,
        ...     global_model=honest,
        ...     uploads={3: poisoned, 5: honest},
        ...     attackers=[3],
        ... )
        >>> for model in trigger_maps(event).models:
        ...     print(model.name, model.malicious, model.classes)
        global model before False (0, 0)
        client 3 True (0, 1)
        client 5 False (0, 0)
    """
    device = next(event.network.parameters()).device
    images = event.images.to(device)
    try:
        layer = find_target_layer(event.network, images)
    except ValueError:
        return None
    large = _enlarged(event.network, images, layer)
    attackers = [client for client in event.uploads if client in event.attackers][:MOST]
    honest = [client for client in event.uploads if client not in event.attackers][:MOST]

    def look(name: str, model: Mapping[str, Tensor], malicious: bool) -> Shown:
        tensors = constants(model, device)
        with evaluating(event.network), torch.no_grad():
            classes = answer(event.network, tensors, images).argmax(dim=1)
        maps = grad_cam(event.network, [model], large, layer, classes)[0].cpu()
        without, triggered = classes.tolist()
        return Shown(name, malicious, (without, triggered), maps)

    def client(client: ClientId) -> Shown:
        return look(f"client {client}", event.uploads[client], client in event.attackers)

    models = [look("global model before", event.global_model, False), *map(client, [*attackers, *honest])]
    return TriggerMaps(event.number, event.images.cpu(), event.label, event.target, models)


def _enlarged(network: nn.Module, images: Tensor, layer: str) -> Tensor:
    """Return the images, enlarged until their maps have enough positions, or as they are if that cannot be done."""
    large, size = images, min(images.shape[-2:])
    try:
        while size <= LARGEST_IMAGE:
            maps = grad_cam(network, [network.state_dict()], resize(images, size)[:1], layer)
            large = resize(images, size)
            if min(maps.shape[-2:]) >= SMALLEST_MAP:
                break
            size *= 2
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
        pass  # the network takes images of one size only
    return large
