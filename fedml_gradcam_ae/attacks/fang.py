"""Fang's attacks: against Krum, and against the trimmed mean (and the median).

Source: Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020.
With "full" knowledge the attackers use the overheard benign uploads, with "partial" knowledge their own honest uploads.
The paper formulates the trimmed-mean version for models. Here it uses updates, so that the sign of an extreme is that
of a change. Weights that no client moved stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.colluders import Colluders, ColludingSettings
from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.updates import squared_distances
from fedml_gradcam_ae.defenses.shared.krum_scores import krum_scores
from fedml_gradcam_ae.networks.images import seeded_generator

_SMALLEST_STEP = 1e-5  # the search for lambda stops below this
_BEYOND = 2.0  # b: poisoned weights are up to this factor beyond the benign extreme
_DEVIATIONS = (3.0, 4.0)  # with partial knowledge, the range of the shift in standard deviations


@register_attack("fang")
class Fang(Attack):
    """Updates that move every weight against the direction s = sign(mean) of the benign clients.

    `krum`: u = -lambda s for all attackers, with the largest lambda of 1, 1/2, 1/4, ... for which Krum picks u.
    `trimmed_mean` with full knowledge: each attacker's weight is beyond the benign extreme on the side opposite to s,
    up to twice as far from 0, or down to half as far where that side is toward 0. `trimmed_mean` with partial
    knowledge: mean - s U(3, 4) std.

    Example:
        >>> import torch
        >>> from dataclasses import replace
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.fang import Fang
        >>> from fedml_gradcam_ae.defenses.krum import Krum
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (0.1, -0.2, 0.3, 0.5, 0.2)],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> poisoned = Fang(Fang.Settings(rule="krum")).poison(round, attackers=[4])
        >>> poisoned  # the benign mean is positive
        [{'weight': tensor([[-0.1250]])}]
        >>> Krum(Krum.Settings(malicious=1)).judge(replace(round, uploads=[*round.uploads[:4], *poisoned])).weights
        [0.0, 0.0, 0.0, 0.0, 1.0]
    """

    class Settings(ColludingSettings):
        """The settings of the attack; with partial knowledge, no benign upload is overheard."""

        rule: Literal["krum", "trimmed_mean"] = Field(
            default="krum", description="rule of the server that the attack is designed for"
        )
        knowledge: Literal["full", "partial"] = Field(
            default="full",
            description="uploads that the attack is estimated from: `full`, the overheard benign ones; `partial`, the "
            "attackers' own honest ones",
        )

        @model_validator(mode="after")
        def _check_deviation(self) -> Fang.Settings:
            alone = self.attackers == 1 or (isinstance(self.attackers, list) and len(self.attackers) == 1)
            if alone and self.rule == "trimmed_mean" and self.knowledge == "partial":
                raise ValueError(
                    "rule trimmed_mean with knowledge partial estimates a standard deviation from the attackers' own "
                    f"uploads, which takes at least two attackers, found attackers {self.attackers}"
                )
            return self

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one upload for each position in `attackers`.

        With partial knowledge and rule `trimmed_mean`, an attacker that is the only one in a round (where clients are
        sampled) cannot estimate a standard deviation and uploads its honest update.
        """
        partial = self.settings.knowledge == "partial"
        colluders = Colluders(round, attackers, self.settings, heard=attackers if partial else None)
        if self.settings.rule == "krum":
            signs = colluders.mean.sign()
            find = largest_step_alone if partial else largest_step
            gram, slopes = colluders.updates.gram, colluders.dot(signs)
            step = find(gram, slopes, float(signs.abs().sum()), len(attackers))
            return colluders.upload(-step * signs)
        generator = seeded_generator(self.settings.seed, 4, round.number)
        draw = below_the_mean if partial else beyond_the_extreme
        updates = draw(colluders, len(attackers), generator)
        return colluders.uploads(colluders.jitter(update, attacker) for attacker, update in enumerate(updates))


def largest_step(gram: Tensor, slopes: Tensor, square: float, copies: int) -> float:
    """Return the largest lambda of 1, 1/2, 1/4, ... for which Krum picks u = -lambda s.

    Krum is given the benign updates and the attackers' copies of u, and assumes as many malicious clients as there are
    copies. Since ||u_i + lambda s||^2 = ||u_i||^2 + 2 lambda <u_i, s> + lambda^2 ||s||^2, inner products suffice.

    Args:
        gram: (benign, benign), <u_i, u_j>.
        slopes: (benign,), <u_i, s>.
        square: ||s||^2.
        copies: the number of attackers that upload u.

    Returns:
        lambda; the first value below 1e-5 if Krum picks u for none of them.
    """
    benign = len(gram)
    squares = gram.diagonal()
    distances = torch.zeros(benign + copies, benign + copies, dtype=gram.dtype, device=gram.device)
    distances[:benign, :benign] = squared_distances(gram)
    step = 1.0
    while step >= _SMALLEST_STEP:
        to_copy = (squares + 2 * step * slopes + step**2 * square).clamp(min=0)
        distances[:benign, benign:] = to_copy[:, None]
        distances[benign:, :benign] = to_copy
        scores = krum_scores(distances, copies)
        if bool(scores[benign] < scores[:benign].min()):  # at a tie Krum's pick would depend on the order of clients
            return step
        step /= 2
    return step


def largest_step_alone(gram: Tensor, slopes: Tensor, square: float, attackers: int) -> float:
    """Return the lambda found with partial knowledge: the attackers' honest updates take the place of the benign ones.

    As in the paper, Krum first has to pick a single copy of u among these updates. Where no lambda achieves that, more
    copies are added. Krum always picks copies that are each other's only neighbors, so the search ends.

    Args:
        gram: (attackers, attackers), <u_i, u_j> of the attackers' honest updates.
        slopes: (attackers,), <u_i, s>.
        square: ||s||^2.
        attackers: the number of attackers.
    """
    step = 1.0
    for copies in range(1, attackers + 2):
        step = largest_step(gram, slopes, square, copies)
        if step >= _SMALLEST_STEP:
            break
    return step


def beyond_the_extreme(colluders: Colluders, attackers: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield one update (d,) per attacker, for full knowledge.

    Each coordinate is below the smallest benign value where the mean is positive, and above the largest one elsewhere.

    Args:
        colluders: the attackers' knowledge.
        attackers: the number of attackers.
        generator: draws how far beyond the extreme the values are.
    """
    signs, extremes = [], []
    for block in colluders.updates.blocks(reuse_buffer=True):
        rises = block.mean(dim=0) > 0
        signs.append(torch.where(rises, 1.0, -1.0))
        extremes.append(torch.where(rises, block.amin(dim=0), block.amax(dim=0)))
    sign, extreme = torch.cat(signs), torch.cat(extremes)
    for _ in range(attackers):
        factor = 1 + (_BEYOND - 1) * _uniform(len(extreme), generator).to(extreme.device)
        # Opposite to s means away from 0 if the extreme is on that side of 0, and toward 0 otherwise.
        yield torch.where(extreme * sign < 0, extreme * factor, extreme / factor)


def below_the_mean(colluders: Colluders, attackers: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield one update (d,) per attacker, for partial knowledge: mean - s U(3, 4) std.

    Args:
        colluders: the attackers' knowledge, here of their own honest updates.
        attackers: the number of attackers.
        generator: draws U(3, 4) for each coordinate.
    """
    mean, std = colluders.mean, colluders.std
    low, high = _DEVIATIONS
    for _ in range(attackers):
        factor = low + (high - low) * _uniform(len(mean), generator).to(mean.device)
        yield mean - mean.sign() * factor * std


def _uniform(size: int, generator: torch.Generator) -> Tensor:
    return torch.rand(size, generator=generator, dtype=torch.float64)
