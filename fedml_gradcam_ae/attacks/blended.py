"""The blended backdoor: a faint pattern over the whole image triggers it.

Source: Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017, section 4.1, the
blended injection strategy with a random pattern.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.backdoor import Backdoor, BackdoorSettings
from fedml_gradcam_ae.attacks.shared.triggers import PixelRange, blended, random_pattern
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.networks.images import seeded_generator


@register_attack("blended")
class Blended(Backdoor):
    """(1 - alpha) x + alpha p in place of a share of each attacker's images x, which are labeled as the target class.

    The pattern p has random pixels, uniform in each channel's range; the seed draws it.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae.attacks.blended import Blended
        >>> attack = Blended(Blended.Settings(target=7, alpha=0.2, pixel_low=0.0, pixel_high=1.0))
        >>> data = [(torch.zeros(2, 1, 2, 2), torch.tensor([4, 5]))]
        >>> for images, labels in attack.poison_data(torch.nn.Identity(), data):
        ...     print(images.amax(dim=(1, 2, 3)) > 0, bool(images.max() <= 0.2), labels)
        tensor([ True, False]) True tensor([7, 5])
    """

    class Settings(BackdoorSettings):
        """The settings of the attack; its seed draws the pattern, which all attackers share."""

        alpha: float = Field(default=0.2, gt=0, le=1, description="the share of the pattern in an image")

    settings: Settings

    @override
    def with_trigger(self, images: Tensor, pixels: PixelRange) -> Tensor:
        """Return the images, blended with the pattern."""
        height, width = images.shape[-2:]
        pattern = random_pattern(height, width, pixels, seeded_generator(self.settings.seed, 6))
        return blended(images, pattern, self.settings.alpha)
