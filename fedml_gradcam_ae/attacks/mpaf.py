"""MPAF: fake clients that move the global model toward a random model.

Source: Cao and Gong, "MPAF: Model Poisoning Attacks to Federated Learning based on Fake Clients", CVPR Workshops 2022.
lambda = 1e6 is the value as commonly implemented. In the paper the fake clients have no data. Here they are clients of
the federation, whose own training is discarded except for BatchNorm's running statistics.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.colluders import Colluders, ColludingSettings
from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.updates import flatten
from fedml_gradcam_ae.networks.images import preserved_random_state, seeded_generator


@register_attack("mpaf")
class MPAF(Attack):
    """The update u = lambda (w_base - w_g) for all attackers, with a newly initialized model w_base.

    w_base is the same in all rounds. Benign uploads are overheard only for the length of the jitter.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.mpaf import MPAF, fresh_parameters
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 3.0, 2.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> (upload,) = MPAF(MPAF.Settings(scale=100.0)).poison(round, attackers=[2])
        >>> base = fresh_parameters(round.network, seed=0)
        >>> torch.allclose(upload["weight"], 100 * base["weight"])
        True
    """

    class Settings(ColludingSettings):
        """The settings of the attack.

        With a scale of 1 the attackers upload w_base itself. Models in half precision overflow at scales far below 1e6.
        """

        scale: float = Field(
            default=1e6,
            gt=0,
            description="lambda, the factor on the difference of the base model from the global model",
        )

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one upload for each position in `attackers`, each with the attacker's own honest statistics."""
        colluders = Colluders(round, attackers, self.settings)
        base = flatten(fresh_parameters(round.network, self.settings.seed), round.parameters).double()
        start = flatten(round.global_model, round.parameters).double()
        update = self.settings.scale * (base.to(start.device) - start)
        honest = [round.uploads[attacker] for attacker in attackers]
        return colluders.uploads(colluders.jittered(update), buffers=honest)


def fresh_parameters(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return the parameters of a newly initialized network, on the CPU; the global random state does not change.

    Every module with `reset_parameters` is reset by it, inner modules first. The parameters of other modules (such as
    a class token or a custom scale) are drawn from U(-1/sqrt(n), 1/sqrt(n)), torch's default for linear layers. n is
    the number of values per entry of the first dimension, or the length of a vector.

    Args:
        network: the architecture; it is copied and does not change.
        seed: draws the parameters.
    """
    fresh = copy.deepcopy(network).cpu()
    with preserved_random_state(), torch.no_grad():
        torch.manual_seed(seeded_generator(seed, 5).initial_seed())
        for module in reversed(list(fresh.modules())):
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                inputs = parameter[0].numel() if parameter.dim() > 1 else parameter.numel()
                bound = 1 / math.sqrt(max(1, inputs))
                parameter.uniform_(-bound, bound)
    return {name: parameter.detach() for name, parameter in fresh.named_parameters()}
