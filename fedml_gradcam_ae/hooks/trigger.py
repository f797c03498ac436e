"""The event that lets listeners draw what a backdoor's trigger does to the heat maps of a round's models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.interfaces import Attack, overrides
from fedml_gradcam_ae.hooks.logits import key
from fedml_gradcam_ae.hooks.surroundings import Federation
from fedml_gradcam_ae.networks.batches import image_tensor, pair
from fedml_gradcam_ae.networks.images import preserved_random_state
from fedml_gradcam_ae.networks.labels import class_indices
from fedml_gradcam_ae.networks.outputs import Classifier
from fedml_gradcam_ae.recording import events


def publish_trigger(attack: Attack | None, federation: Federation) -> None:
    """Publish a `Triggered` event of the round, if its attackers have a trigger that changes images.

    Args:
        attack: the plug-in's attack that is on, or None.
        federation: the round with the uploads that passed the gate and the attackers.
    """
    round = federation.admitted
    if attack is None or round is None or not federation.attackers or not overrides(type(attack), "triggered"):
        return
    found = image_with_trigger(attack, federation.test_data)
    if found is None:
        return
    images, label, target = found
    events.publish(
        events.Triggered(
            number=federation.number,
            network=Classifier(federation.network, key()),
            images=images,
            label=label,
            target=target,
            global_model=round.global_model,
            uploads=dict(zip(round.client_ids, round.uploads, strict=True)),
            attackers=federation.attackers,
        )
    )


def image_with_trigger(attack: Attack, test_data: Iterable[Any]) -> tuple[Tensor, int, int] | None:
    """Return the test image of the first batch with other classes than the target that the trigger changes most.

    Args:
        attack: a targeted attack.
        test_data: the server's batches (images, labels).

    Returns:
        (2, channels, height, width), the image without and with the trigger, its class, and the class that the attack
        wants; None for an attack without a trigger, or without such an image.
    """
    with preserved_random_state():
        for batch in test_data:
            images, labels = (
                part(given) for part, given in zip((image_tensor, class_indices), pair(batch), strict=True)
            )
            found = attack.triggered(images, labels)
            if found is None:
                return None
            if len(found[0]):  # the batch has images of another class than the target
                return _most_changed(attack, images, labels)
    return None


def _most_changed(attack: Attack, images: Tensor, labels: Tensor) -> tuple[Tensor, int, int] | None:
    """Return the image of a batch that the trigger changes most: on a bright one a bright square is not seen."""
    best, largest = None, 0.0
    for position in range(len(images)):
        image, label = images[position : position + 1], labels[position : position + 1]
        found = attack.triggered(image, label)
        if found is None or not len(found[0]):
            continue
        with_trigger, wanted = found
        change = float((with_trigger - image).norm())
        if change > largest:
            best, largest = (torch.cat([image, with_trigger]), int(label), int(wanted)), change
    return best
