"""MPAF: fake clients that drag the global model toward a random one.

Source: Cao and Gong, "MPAF: Model Poisoning Attacks to Federated Learning based on Fake Clients", CVPR Workshops 2022.
lambda = 1e6 is the value as commonly implemented. The fake clients have no data there; here they are clients of the
federation whose own training is thrown away but for BatchNorm's running statistics.
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
    """All attackers upload u = lambda (w_base - w_g), w_base a freshly initialized model, the same in all rounds.

    Nobody is overheard, except for the length of the jitter.
    """

    class Settings(ColludingSettings):
        """With a scale of 1 the attackers upload w_base itself; models in half precision overflow far below 1e6."""

        scale: float = Field(default=1e6, gt=0, description="lambda, how far beyond the base model the uploads go")

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """One upload for each position in `attackers`, each with the attacker's own honest statistics."""
        colluders = Colluders(round, attackers, self.settings)
        base = flatten(fresh_parameters(round.network, self.settings.seed), round.parameters).double()
        start = flatten(round.global_model, round.parameters).double()
        update = self.settings.scale * (base.to(start.device) - start)
        honest = [round.uploads[attacker] for attacker in attackers]
        return colluders.uploads(colluders.jittered(update), buffers=honest)


def fresh_parameters(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """The parameters of a newly initialized network, on the CPU; the global random state stays as it was.

    Every module with `reset_parameters` is reset by it, inner ones first. Parameters of other modules (a class token,
    a scale of one's own) are drawn from U(-1/sqrt(n), 1/sqrt(n)), torch's default for linear layers, n being the
    number of values per entry of the first dimension, or the length of a vector.
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
