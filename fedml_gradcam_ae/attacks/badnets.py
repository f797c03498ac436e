"""BadNets: a backdoor that a patch on the image triggers.

Source: Gu et al., "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017, section 3:
the attacker adds a bright pattern in a corner of some training images and labels them as the target class. The paper
poisons one training set; here each attacker poisons its own, half of it by default.
"""

from __future__ import annotations

from fedml_gradcam_ae.attacks.shared.backdoor import PatchBackdoor, PatchSettings
from fedml_gradcam_ae.contract.registry import register_attack


@register_attack("badnets")
class BadNets(PatchBackdoor):
    """A square of one color on a share of each attacker's images, which are labeled as the target class.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae.attacks.badnets import BadNets
        >>> attack = BadNets(BadNets.Settings(target=7, trigger_size=1, pixel_high=1.0))
        >>> data = [(torch.zeros(2, 1, 2, 2), torch.tensor([4, 5]))]
        >>> for images, labels in attack.poison_data(torch.nn.Identity(), data):
        ...     print(images[:, 0].tolist(), labels)
        [[[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]] tensor([7, 5])
    """

    class Settings(PatchSettings):
        """The settings of the attack."""

    settings: Settings
