"""What the attacks by poisoned training data have in common: how their uploads are changed after the training.

Sources: model replacement, Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020, section 4; the
projection to a norm that does not stand out, Sun et al., "Can You Really Backdoor Federated Learning?", 2019; see
`neurotoxin` for the third.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.neurotoxin import Neurotoxin
from fedml_gradcam_ae.attacks.shared.poisoned_batches import Change, PoisonedBatches
from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.screening import upload_problem
from fedml_gradcam_ae.contract.settings import AttackSettings, SettingsError
from fedml_gradcam_ae.contract.updates import Updates
from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.networks.outputs import OutputSettings


class PoisoningSettings(OutputSettings, AttackSettings):
    """How the attackers change the updates that their training on poisoned data comes to, in this order."""

    neurotoxin: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Neurotoxin: the share of the coordinates, those that the last global update moved most, that the "
        "attackers' training does not move; null: none",
    )
    scale: Annotated[float, Field(gt=0)] | Literal["auto"] | None = Field(
        default=None,
        description="model replacement: the factor of the attackers' updates; `auto`: clients / attackers of the "
        "round, so that their update is what the average comes to; null: none",
    )
    norm_bound: float | None = Field(
        default=None,
        gt=0,
        description="the longest update that the attackers upload, in units of the median length of the honest ones; "
        "longer ones are shortened to it; null: no bound",
    )


class DataPoisoning(Attack):
    """An attack whose attackers train on poisoned data, through the trainer of every other client."""

    settings: PoisoningSettings

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        fraction = self.settings.neurotoxin
        self._neurotoxin = None if fraction is None else Neurotoxin(fraction)

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[Upload]:
        """Return the attackers' uploads, which their training poisoned, longer or shorter as the settings say.

        BatchNorm's running statistics stay those of their training.
        """
        uploads = [round.uploads[position] for position in attackers]
        scale = self.settings.scale
        factor = len(round.uploads) / len(attackers) if scale == "auto" else 1.0 if scale is None else scale
        factors = [factor] * len(uploads)
        if self.settings.norm_bound is not None:
            bound = self.settings.norm_bound * _usual_length(round, attackers)
            factors = [bounded_factor(factor, length, bound) for length in _lengths(round, attackers)]
        names = set(round.parameters)
        return [
            upload if factor == 1 else lengthened(upload, round.global_model, names, factor)
            for upload, factor in zip(uploads, factors, strict=True)
        ]

    def training_batches(
        self, network: nn.Module, data: Iterable[Any], change: Change, share: float = 1.0
    ) -> PoisonedBatches:
        """Return the batches that an attacker trains on.

        Args:
            network: the model that it trains.
            data: its own batches (images, labels).
            change: see `PoisonedBatches`.
            share: of the samples to poison.
        """
        if self._neurotoxin is None:
            return PoisonedBatches(data, change, share)
        return PoisonedBatches(data, change, share, self._neurotoxin.training(network).during)


def bounded_factor(factor: float, length: float, bound: float) -> float:
    """Return the factor that makes an update longer, or the one that makes it as long as a bound if that is smaller.

    Args:
        factor: above 0.
        length: the length of the update.
        bound: the largest length allowed.

    Example:
        >>> [bounded_factor(5.0, length, bound=3.0) for length in (0.0, 0.5, 2.0, 6.0)]
        [5.0, 5.0, 1.5, 0.5]
    """
    return bound / length if factor * length > bound else factor


def lengthened(upload: Upload, start: Mapping[str, Tensor], names: Iterable[str], factor: float) -> dict[str, Tensor]:
    """Return the upload with a multiple of its update: w_g + factor (w - w_g).

    Args:
        upload: the state dict w.
        start: the state dict of the global model w_g.
        names: the tensors to change; the others stay.
        factor: the multiple.

    Example:
        >>> import torch
        >>> upload, start = {"weight": torch.tensor([3.0])}, {"weight": torch.tensor([1.0])}
        >>> lengthened(upload, start, ["weight"], factor=2.0)
        {'weight': tensor([5.])}
    """
    changed = dict(upload)
    for name in names:
        center = start[name].double()
        changed[name] = (center + factor * (upload[name].double() - center)).to(start[name].dtype)
    return changed


def check_class(key: str, label: int | None, classes: int) -> None:
    """Check that a class that an attack names exists.

    Args:
        key: of the setting.
        label: the class; None is no class and passes.
        classes: the number of classes.

    Raises:
        SettingsError: if it does not exist.

    Example:
        >>> check_class("target", 10, classes=10)
        Traceback (most recent call last):
            ...
        fedml_gradcam_ae.contract.settings.SettingsError: attack_params.target: there is no class 10; there are 10 \
classes, 0 to 9.
    """
    if label is not None and label >= classes:
        raise SettingsError(
            f"attack_params.{key}: there is no class {label}; there are {classes} classes, 0 to {classes - 1}."
        )


def _usual_length(round: Round, attackers: Sequence[int]) -> float:
    """Return the median length of the usable honest updates; of the attackers' own where no client is honest."""
    usable = [i for i, upload in enumerate(round.uploads) if upload_problem(upload, round.global_model) is None]
    honest = [i for i in usable if i not in attackers] or usable
    return median(_lengths(round, honest)) if honest else math.inf


def _lengths(round: Round, positions: Sequence[int]) -> list[float]:
    uploads = [round.uploads[position] for position in positions]
    lengths = Updates(uploads, round.global_model, round.parameters).lengths()
    return [float(length) for length in lengths.norm(dim=1)]
