"""What a defense and an attack are: one required method each, and optional ones that do nothing unless overridden."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import AttackSettings, DefenseSettings
from fedml_gradcam_ae.contract.upload import ClientId, Upload

if TYPE_CHECKING:
    from torch import Tensor, nn


class Judge(Protocol):
    """What a defense must do."""

    def judge(self, round: Round) -> Verdict:
        """Judge the uploads of one round; see `Defense.judge`."""


class Poisoner(Protocol):
    """What an attack must do."""

    def poison(self, round: Round, attackers: Sequence[int]) -> Sequence[Upload]:
        """Make the attackers' uploads of one round; see `Attack.poison`."""


class Defense:
    """A rule that decides which uploads enter the new global model.

    A subclass implements `judge` and declares its keys in `Settings`. State over rounds is keyed by client id, since
    clients may come and go.

    Args:
        settings: checked values of `Settings`, as the YAML's `defense_params` have them.

    Example:
        >>> from fedml_gradcam_ae import Defense, Verdict
        >>> class Everyone(Defense):
        ...     def judge(self, round):
        ...         clients = len(round.uploads)
        ...         return Verdict(weights=[1 / clients] * clients)
        >>> Everyone().state()
        {}
    """

    Settings: type[DefenseSettings] = DefenseSettings
    settings: Any = None

    def __init__(self, settings: Any = None) -> None:
        self.settings = self.Settings() if settings is None else settings

    def judge(self, round: Round) -> Verdict:
        """Judge the uploads of one round.

        Args:
            round: at least one upload, each of them canonical and finite.

        Raises:
            TooFewUploads: if the rule's guarantee needs more uploads than there are.
        """
        raise NotImplementedError

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Check, before any training, that the rule can work with this network and these data.

        Args:
            network: a private copy of the architecture, in eval mode.
            test_data: the server's batches (images, labels).

        Raises:
            ValueError: if the rule cannot work with them.
        """

    def state(self) -> dict[str, Any]:
        """Return what must outlive the process: numbers, text, tensors, and containers of them."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""

    def release(self, client: ClientId) -> None:
        """Forget what is held against a client, so that it is judged like any other."""

    def start_for(self, client: ClientId, global_model: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the state dict that a client starts its training from."""
        return global_model

    def predictor(self, network: nn.Module) -> nn.Module:
        """Return the module that answers for the federation in a test.

        Args:
            network: the architecture with the global model's weights.
        """
        return network


class Attack:
    """What malicious clients upload in place of what they trained.

    A subclass implements `poison` and declares its keys in `Settings`.

    Args:
        settings: checked values of `Settings`, as the YAML's `attack_params` have them.
    """

    Settings: type[AttackSettings] = AttackSettings
    settings: Any = None

    def __init__(self, settings: Any = None) -> None:
        self.settings = self.Settings() if settings is None else settings

    def poison(self, round: Round, attackers: Sequence[int]) -> Sequence[Upload]:
        """Make the attackers' uploads of one round.

        Args:
            round: with everybody's honest upload, and with `local_data`.
            attackers: positions of the malicious clients in `round.client_ids`.

        Returns:
            One state dict for each of `attackers`, in their order.
        """
        raise NotImplementedError

    def poison_data(self, network: nn.Module, data: Iterable[Any]) -> Iterable[Any]:
        """Return the batches that an attacker trains on in place of its own `data`."""
        return data


def overrides(cls: type[Any] | None, method: str) -> bool:
    """Whether a defense or an attack has a method of its own, or leaves it as it is here.

    Example:
        >>> from fedml_gradcam_ae.defenses.flcert import FLCert
        >>> overrides(FLCert, "start_for"), overrides(FLCert, "release")
        (True, False)
    """
    for base in (Defense, Attack):
        if cls is not None and issubclass(cls, base) and hasattr(base, method):
            return getattr(cls, method) is not getattr(base, method)
    return False


def timed_judge(defense: Judge, round: Round) -> Verdict:
    """Judge a round, and add how long that took to the verdict's `seconds`, as `total`.

    Raises:
        ValueError: if the verdict does not have one entry for each client of the round.
    """
    start = perf_counter()
    verdict = defense.judge(round)
    seconds = {**verdict.seconds, "total": perf_counter() - start}
    if verdict.clients not in (None, len(round.client_ids)):
        raise ValueError(
            f"{type(defense).__name__}.judge answered for {verdict.clients} clients, where the round has "
            f"{len(round.client_ids)}: {', '.join(map(str, round.client_ids))}."
        )
    return replace(verdict, seconds=seconds)
