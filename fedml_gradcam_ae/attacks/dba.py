"""DBA, the distributed backdoor attack: each attacker trains on a part of the trigger, and the whole is used later.

Source: Xie et al., "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020, section 3. The paper has
four attackers and four bars with gaps between them; here the parts are the four quarters of a square.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.backdoor import PatchBackdoor, PatchSettings
from fedml_gradcam_ae.attacks.shared.triggers import PixelRange, quarters, stamped
from fedml_gradcam_ae.contract.registry import register_attack


@register_attack("dba")
class DistributedBackdoor(PatchBackdoor):
    """A quarter of a square on a share of an attacker's images; the square as a whole at test time.

    The quarters are dealt to the attackers in turn. Fewer than four attackers get several quarters each, so that a
    single one has the whole square.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae.attacks.dba import DistributedBackdoor
        >>> attack = DistributedBackdoor(DistributedBackdoor.Settings(target=7, share=1.0, pixel_high=1.0))
        >>> data = [(torch.zeros(1, 1, 4, 4), torch.tensor([5]))]
        >>> for attacker in (0, 3):
        ...     for images, labels in attack.poison_data(torch.nn.Identity(), data, attacker, attackers=4):
        ...         print(images[0, 0].int().tolist(), labels)
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]] tensor([7])
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]] tensor([7])
    """

    class Settings(PatchSettings):
        """The settings of the attack."""

        trigger_size: int = Field(default=4, ge=2, description="height and width of the whole square in pixels")

    settings: Settings

    @override
    def with_own_trigger(self, images: Tensor, pixels: PixelRange, attacker: int, attackers: int) -> Tensor:
        """Return copies of the images with the attacker's quarters of the square."""
        parts = quarters(self.square(images))
        first, step = attacker % len(parts), min(attackers, len(parts))
        own = [part for number, part in enumerate(parts) if number % step == first]
        return stamped(images, own, self.color(pixels))
