"""Attackers who pool the benign uploads that they overhear and agree on an update.

What most attacks need is here: who is overheard, the mean and the standard deviation of the overheard updates, and the
way from an agreed update back to one upload per attacker, with some noise for those who would not be seen as copies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from weakref import WeakKeyDictionary

import torch
from pydantic import Field
from torch import Tensor

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.screening import upload_problem
from fedml_gradcam_ae.contract.settings import AttackSettings
from fedml_gradcam_ae.contract.updates import Updates, unflatten, weighted_mean
from fedml_gradcam_ae.networks.images import draw_images, seeded_generator


class ColludingSettings(AttackSettings):
    """What every attack by colluding attackers takes."""

    eavesdropped: int | None = Field(
        default=None, ge=2, description="J, how many benign uploads are overheard each round; null: all of them"
    )
    jitter: float = Field(
        default=0.0,
        ge=0,
        description="length of the noise on each attacker's copy, in units of the mean distance between an overheard "
        "upload and their mean; 0: all attackers upload the same",
    )
    own_deviation: float = Field(
        default=0.0,
        ge=0,
        description="how much of what its own honest update differs from the overheard mean each attacker adds to its "
        "copy, BatchNorm's statistics included (1 at most); 1: attackers differ as honest clients do",
    )


class Overheard:
    """What overheard updates have in common: the same for every attack on a round by those who overhear the same.

    Args:
        updates: the J updates.
    """

    def __init__(self, updates: Updates) -> None:
        self.updates = updates

    @classmethod
    def of(cls, round: Round, heard: Sequence[int]) -> Overheard:
        """That of the uploads at these positions; a round remembers the last one that it was asked for."""
        remembered = _overheard.get(round)
        if remembered is None or remembered[0] != list(heard):
            updates = Updates([round.uploads[i] for i in heard], round.global_model, round.parameters)
            remembered = list(heard), cls(updates)
            _overheard[round] = remembered
        return remembered[1]

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (d,) each, float64."""
        means, deviations = [], []
        for block in self.updates.blocks(fleeting=True):
            centered, mean = _center(block)
            means.append(mean)
            deviations.append(centered.square().mean(dim=0).sqrt())
        return torch.cat(means), torch.cat(deviations)

    @cached_property
    def gram(self) -> Tensor:
        """(J, J), float64, of the deviations from the mean."""
        device = self.updates.center[self.updates.names[0]].device
        total = torch.zeros(len(self.updates), len(self.updates), dtype=torch.float64, device=device)
        for block in self.updates.blocks(fleeting=True):
            centered, _ = _center(block)
            total += centered @ centered.T
        return total


_overheard: WeakKeyDictionary[Round, tuple[list[int], Overheard]] = WeakKeyDictionary()


class Colluders:
    """What the attackers of a round know together, and the uploads that they make of it.

    Args:
        round: the round, its uploads all honest.
        attackers: positions of the attackers.
        settings: how many uploads are overheard, and the jitter.
        heard: positions of the uploads to learn from; None: overhear them.
    """

    def __init__(
        self, round: Round, attackers: Sequence[int], settings: ColludingSettings, heard: Sequence[int] | None = None
    ) -> None:
        self.round, self.attackers, self.settings = round, attackers, settings
        self.heard = overhear(round, attackers, settings) if heard is None else list(heard)
        self._overheard = Overheard.of(round, self.heard)

    @property
    def updates(self) -> Updates:
        """The J overheard updates."""
        return self._overheard.updates

    @property
    def mean(self) -> Tensor:
        """(d,), float64: the unweighted mean of the overheard updates."""
        return self._overheard.moments[0]

    @property
    def std(self) -> Tensor:
        """(d,), float64: their standard deviation per coordinate, with 1/J; exactly 0 where all agree."""
        return self._overheard.moments[1]

    @property
    def gram(self) -> Tensor:
        """(J, J), float64: <R_i, R_j> of the deviations R_i = u_i - mean."""
        return self._overheard.gram

    @property
    def distances(self) -> Tensor:
        """(J,), float64: ||u_i - mean||."""
        return self.gram.diagonal().sqrt()

    @property
    def device(self) -> torch.device:
        """Where the uploads are."""
        return self.round.global_model[self.round.parameters[0]].device

    def dot(self, vector: Tensor) -> Tensor:
        """(J,), float64: the inner products <u_i, vector> with a vector of shape (d,)."""
        return self.updates.dot(unflatten(vector, self.round.global_model, self.round.parameters))

    def upload(self, update: Tensor) -> list[dict[str, Tensor]]:
        """The agreed update (d,), disguised, as one upload per attacker."""
        return self.uploads(self.jittered(update))

    def jittered(self, update: Tensor) -> Iterator[Tensor]:
        """The agreed update (d,) with what makes each attacker's copy its own."""
        for attacker in range(len(self.attackers)):
            yield self.jitter(update, attacker)

    def jitter(self, update: Tensor, attacker: int) -> Tensor:
        """The update (d,) with the noise and the deviation of one attacker, counted from 0."""
        if self.settings.own_deviation:
            own = Updates([self.round.uploads[self.attackers[attacker]]], self.updates.center, self.updates.names)
            deviation = torch.cat([block[0] for block in own.blocks()]) - self.mean
            update = update + self.settings.own_deviation * deviation
        if not self.settings.jitter:
            return update
        length = self.settings.jitter * float(self.distances.mean())
        return update + jitter_noise(self.settings, self.round.number, attacker, len(update), length).to(update.device)

    def uploads(
        self, updates: Iterable[Tensor], buffers: Sequence[Mapping[str, Tensor]] | None = None
    ) -> list[dict[str, Tensor]]:
        """The models w_g + u as state dicts.

        Args:
            updates: u, (d,), one per attacker.
            buffers: one state dict per attacker that its other tensors (BatchNorm's statistics) are taken from; None:
                they are those of the overheard mean, and of `own_deviation`.
        """
        round, names = self.round, self.round.parameters
        trained = set(names)
        rest = [name for name in round.global_model if name not in trained]
        if buffers is None:
            heard = self.updates.uploads
            mean = weighted_mean(heard, [1 / len(heard)] * len(heard), rest)
            own = [round.uploads[attacker] for attacker in self.attackers]
            buffers = [deviating(mean, upload, self.settings.own_deviation) for upload in own]
        uploads = []
        for update, others in zip(updates, buffers, strict=True):
            moved = unflatten(update, round.global_model, names)
            uploads.append(
                {
                    name: (like.double() + moved[name]).to(like.dtype) if name in moved else others[name].clone()
                    for name, like in round.global_model.items()
                }
            )
        return uploads


def overhear(round: Round, attackers: Sequence[int], settings: ColludingSettings) -> list[int]:
    """Positions of the J benign uploads that are overheard, drawn anew each round.

    Benign uploads that the server will refuse (a training that diverged) are left aside: they would ruin any mean.
    Where nobody is benign, the attackers overhear themselves.
    """

    def usable(positions: Iterable[int]) -> list[int]:
        return [i for i in positions if upload_problem(round.uploads[i], round.global_model) is None]

    benign = usable(i for i in range(len(round.uploads)) if i not in attackers)
    order = torch.randperm(len(benign), generator=seeded_generator(settings.seed, 1, round.number)).tolist()
    return sorted(benign[i] for i in order[: settings.eavesdropped]) or usable(attackers) or list(attackers)


def own_images(
    round: Round,
    attackers: Sequence[int],
    count: int,
    generator: torch.Generator,
    *,
    classes: int | None = None,
    labeled: bool = True,
) -> tuple[Tensor, Tensor]:
    """About `count` images that the attackers hold, and their labels.

    A Round without `local_data` (an attack staged on a server) gives the server's test data instead. `classes` and
    `labeled` are those of `draw_images`.
    """
    draw = partial(draw_images, generator=generator, classes=classes, labeled=labeled)
    own = [data for i in attackers if (data := round.local_data.get(round.client_ids[i])) is not None]
    if not own:
        return draw(round.test_data, count)
    share = math.ceil(count / len(own))
    drawn = [draw(data, share) for data in own]
    return torch.cat([images for images, _ in drawn]), torch.cat([labels for _, labels in drawn])


def deviating(mean: Mapping[str, Tensor], own: Mapping[str, Tensor], share: float) -> Mapping[str, Tensor]:
    """The mean's tensors, moved by this share, at most 1 (variances stay positive), to an attacker's own."""
    share = min(share, 1.0)
    return weighted_mean([mean, own], [1 - share, share], list(mean)) if share else mean


def jitter_noise(settings: AttackSettings, number: int, attacker: int, size: int, length: float) -> Tensor:
    """Gaussian noise, (size,), float64, scaled to exactly this length: one attacker's in round `number`."""
    generator = seeded_generator(settings.seed, 3, number, attacker)
    noise = torch.randn(size, generator=generator, dtype=torch.float64)
    return noise * (length / float(noise.norm()))


def _center(block: Tensor) -> tuple[Tensor, Tensor]:
    """A block (clients, columns) less its mean, and the mean; where all clients agree, exactly 0 and their value."""
    first = block[0]
    shifted = block - first
    offset = shifted.mean(dim=0)
    return shifted.sub_(offset), first + offset
