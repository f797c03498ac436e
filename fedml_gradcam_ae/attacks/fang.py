"""Fang's attacks: against Krum, and against the trimmed mean (and the median).

Source: Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020.
"Full" knowledge is the benign uploads that are overheard, "partial" the attackers' own honest ones. The paper writes
the trimmed-mean version for models; here it is about updates, so that an extreme's sign is that of a change. Weights
that no client moved stay.
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

_SMALLEST_STEP = 1e-5
_BEYOND = 2.0  # b
_DEVIATIONS = (3.0, 4.0)


@register_attack("fang")
class Fang(Attack):
    """Move every weight against the direction s = sign(mean) in which the benign clients move it.

    `krum`: u = -lambda s for all attackers, with the largest lambda of 1, 1/2, 1/4, ... that makes Krum pick it.
    `trimmed_mean`, full knowledge: each attacker's weight lies beyond the benign extreme on the side away from s, up
    to twice (or, where the way leads toward 0, down to half) as far from 0. Partial: mean - s U(3, 4) std.
    """

    class Settings(ColludingSettings):
        """With partial knowledge the attackers' own honest uploads take the place of the overheard ones."""

        rule: Literal["krum", "trimmed_mean"] = Field(
            default="krum", description="the server's rule that the attack is made for"
        )
        knowledge: Literal["full", "partial"] = Field(
            default="full",
            description="learn from the overheard benign uploads, or from the attackers' own honest ones",
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
        """One upload for each position in `attackers`.

        An attacker that takes part alone, where clients are sampled, has no standard deviation to estimate with
        partial knowledge, and uploads its honest update.
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
    """The largest lambda of 1, 1/2, 1/4, ... for which Krum picks u = -lambda s; the first below 1e-5 if there is none.

    Krum sees the benign updates and the attackers' copies of u, and assumes as many malicious clients as there are
    copies. ||u_i + lambda s||^2 = ||u_i||^2 + 2 lambda <u_i, s> + lambda^2 ||s||^2, so no lambda needs the vectors.

    Args:
        gram: (benign, benign), <u_i, u_j>.
        slopes: (benign,), <u_i, s>.
        square: ||s||^2.
        copies: how many attackers upload u.
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
        if bool(scores[benign] < scores[:benign].min()):  # at a tie it depends on the order of clients
            return step
        step /= 2
    return step


def largest_step_alone(gram: Tensor, slopes: Tensor, square: float, attackers: int) -> float:
    """lambda as the attackers find it on their own: their honest updates in the place of the benign ones.

    As in the paper, first a single copy has to be picked among them; where no lambda achieves that, more are added.
    Copies that are one another's only neighbors are picked at once, so this ends.
    """
    step = 1.0
    for copies in range(1, attackers + 2):
        step = largest_step(gram, slopes, square, copies)
        if step >= _SMALLEST_STEP:
            break
    return step


def beyond_the_extreme(colluders: Colluders, attackers: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Full knowledge: updates (d,) beyond the smallest benign one where the mean rises, the largest where it falls."""
    signs, extremes = [], []
    for block in colluders.updates.blocks(fleeting=True):
        rises = block.mean(dim=0) > 0
        signs.append(torch.where(rises, 1.0, -1.0))
        extremes.append(torch.where(rises, block.amin(dim=0), block.amax(dim=0)))
    sign, extreme = torch.cat(signs), torch.cat(extremes)
    for _ in range(attackers):
        factor = 1 + (_BEYOND - 1) * _uniform(len(extreme), generator).to(extreme.device)
        # Away from s is away from 0 for an extreme on that side, toward 0 for one on the other.
        yield torch.where(extreme * sign < 0, extreme * factor, extreme / factor)


def below_the_mean(colluders: Colluders, attackers: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Partial knowledge: updates (d,), mean - s U(3, 4) std."""
    mean, std = colluders.mean, colluders.std
    low, high = _DEVIATIONS
    for _ in range(attackers):
        factor = low + (high - low) * _uniform(len(mean), generator).to(mean.device)
        yield mean - mean.sign() * factor * std


def _uniform(size: int, generator: torch.Generator) -> Tensor:
    return torch.rand(size, generator=generator, dtype=torch.float64)
