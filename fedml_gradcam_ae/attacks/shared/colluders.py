"""Colluding attackers, which pool the benign uploads that they overhear and agree on one update.

Most attacks need these parts: the choice of the overheard clients, the mean and the standard deviation of the overheard
updates, and one upload per attacker for an agreed update, with noise that keeps the uploads from being exact copies.
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
    """The settings of every attack by colluding attackers."""

    eavesdropped: int | None = Field(
        default=None,
        ge=2,
        description="J, the number of benign uploads that are overheard each round; null: all of them",
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
        description="factor on the difference of each attacker's own honest update from the overheard mean, which is "
        "added to its copy (for BatchNorm's statistics at most 1); 1: attackers differ as honest clients do",
    )


class Overheard:
    """The statistics of overheard updates, shared by all attacks on a round that overhear the same uploads.

    Args:
        updates: the J overheard updates.
    """

    def __init__(self, updates: Updates) -> None:
        self.updates = updates

    @classmethod
    def of(cls, round: Round, heard: Sequence[int]) -> Overheard:
        """Return the statistics of some of a round's uploads; the last ones of each round are cached.

        Args:
            round: the round.
            heard: positions of the overheard uploads.
        """
        remembered = _overheard.get(round)
        if remembered is None or remembered[0] != list(heard):
            updates = Updates([round.uploads[i] for i in heard], round.global_model, round.parameters)
            remembered = list(heard), cls(updates)
            _overheard[round] = remembered
        return remembered[1]

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """The mean and the standard deviation (with 1/J) per coordinate, (d,) each, float64."""
        means, deviations = [], []
        for block in self.updates.blocks(reuse_buffer=True):
            centered, mean = _center(block)
            means.append(mean)
            deviations.append(centered.square().mean(dim=0).sqrt())
        return torch.cat(means), torch.cat(deviations)

    @cached_property
    def gram(self) -> Tensor:
        """The inner products of the deviations from the mean, (J, J), float64."""
        device = self.updates.center[self.updates.names[0]].device
        total = torch.zeros(len(self.updates), len(self.updates), dtype=torch.float64, device=device)
        for block in self.updates.blocks(reuse_buffer=True):
            centered, _ = _center(block)
            total += centered @ centered.T
        return total


_overheard: WeakKeyDictionary[Round, tuple[list[int], Overheard]] = WeakKeyDictionary()


class Colluders:
    """The attackers of a round: their common knowledge, and their uploads for an agreed update.

    Args:
        round: the round, its uploads all honest.
        attackers: positions of the attackers.
        settings: the number of overheard uploads, the jitter and the own deviation.
        heard: positions of the uploads to learn from; None: those that `overhear` chooses.
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
        """The unweighted mean of the overheard updates, (d,), float64."""
        return self._overheard.moments[0]

    @property
    def std(self) -> Tensor:
        """The standard deviation per coordinate with 1/J, (d,), float64; exactly 0 where all updates are equal."""
        return self._overheard.moments[1]

    @property
    def gram(self) -> Tensor:
        """The inner products <R_i, R_j> of the deviations R_i = u_i - mean, (J, J), float64."""
        return self._overheard.gram

    @property
    def distances(self) -> Tensor:
        """The distances ||u_i - mean||, (J,), float64."""
        return self.gram.diagonal().sqrt()

    @property
    def device(self) -> torch.device:
        """The device of the global model."""
        return self.round.global_model[self.round.parameters[0]].device

    def dot(self, vector: Tensor) -> Tensor:
        """Return the inner products <u_i, vector> of the overheard updates, (J,), float64.

        Args:
            vector: (d,).
        """
        return self.updates.dot(unflatten(vector, self.round.global_model, self.round.parameters))

    def upload(self, update: Tensor) -> list[dict[str, Tensor]]:
        """Return one upload per attacker for the agreed update (d,), with jitter and own deviations."""
        return self.uploads(self.jittered(update))

    def jittered(self, update: Tensor) -> Iterator[Tensor]:
        """Yield the agreed update (d,) with each attacker's jitter and own deviation."""
        for attacker in range(len(self.attackers)):
            yield self.jitter(update, attacker)

    def jitter(self, update: Tensor, attacker: int) -> Tensor:
        """Return an update with the jitter and the own deviation of one attacker, (d,).

        Args:
            update: (d,), float64.
            attacker: the attacker's place in `attackers`, from 0.
        """
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
        """Return the models w_g + u as state dicts.

        Args:
            updates: u, (d,), one per attacker.
            buffers: one state dict per attacker, from which the other tensors (BatchNorm's statistics) are taken; None:
                those of the overheard mean, moved by `own_deviation`.

        Returns:
            One state dict per attacker.
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
    """Return the positions of the J benign uploads that are overheard, drawn anew each round.

    Benign uploads that the server will reject (from a training that diverged) are skipped, since they would ruin the
    mean. Where there is no usable benign upload, the attackers overhear themselves.

    Args:
        round: the round, its uploads all honest.
        attackers: positions of the attackers.
        settings: J and the seed.

    Returns:
        The positions, at least one; in ascending order where they are those of benign uploads.
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
    """Return about `count` images of the attackers' own, and their labels.

    For a Round without `local_data` (an attack staged on a server) they are drawn from the server's test data.

    Args:
        round: the round.
        attackers: positions of the attackers.
        count: the number of images, divided equally among the attackers and rounded up.
        generator: draws the images.
        classes: see `draw_images`.
        labeled: see `draw_images`.

    Returns:
        (images, channels, height, width) and (images,).

    Raises:
        ValueError: if the data hold no usable image.
    """
    draw = partial(draw_images, generator=generator, classes=classes, labeled=labeled)
    own = [data for i in attackers if (data := round.local_data.get(round.client_ids[i])) is not None]
    if not own:
        return draw(round.test_data, count)
    share = math.ceil(count / len(own))
    drawn = [draw(data, share) for data in own]
    return torch.cat([images for images, _ in drawn]), torch.cat([labels for _, labels in drawn])


def deviating(mean: Mapping[str, Tensor], own: Mapping[str, Tensor], share: float) -> Mapping[str, Tensor]:
    """Return the mean's tensors, moved by a share toward an attacker's own.

    Args:
        mean: the state dict of the mean.
        own: the attacker's own state dict, which has the same tensors.
        share: clamped to 1, so that variances stay positive.

    Example:
        >>> deviating({"mean": torch.tensor([0.0])}, {"mean": torch.tensor([4.0])}, share=0.25)
        {'mean': tensor([1.])}
    """
    share = min(share, 1.0)
    return weighted_mean([mean, own], [1 - share, share], list(mean)) if share else mean


def jitter_noise(settings: AttackSettings, number: int, attacker: int, size: int, length: float) -> Tensor:
    """Return one attacker's Gaussian noise in a round, scaled to a length.

    Args:
        settings: the settings of the attack, for the seed.
        number: the round, from 1.
        attacker: the attacker, counted from 0.
        size: the number of coordinates d.
        length: the Euclidean length of the noise.

    Returns:
        (size,), float64, on the CPU.
    """
    generator = seeded_generator(settings.seed, 3, number, attacker)
    noise = torch.randn(size, generator=generator, dtype=torch.float64)
    return noise * (length / float(noise.norm()))


def _center(block: Tensor) -> tuple[Tensor, Tensor]:
    """Return a block (clients, columns) less its mean, and the mean (columns,).

    In columns where all clients have one value, the result is exactly 0 and that value.
    """
    first = block[0]
    shifted = block - first
    offset = shifted.mean(dim=0)
    return shifted.sub_(offset), first + offset
