"""The base classes of defenses and attacks: one required method each, and optional ones that do nothing by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import AssumesMalicious, AttackSettings, DefenseSettings
from fedml_gradcam_ae.contract.upload import ClientId, Upload

if TYPE_CHECKING:
    from torch import Tensor, nn


class Judge(Protocol):
    """The method that a defense must have."""

    def judge(self, round: Round) -> Verdict:
        """Judge the uploads of one round; see `Defense.judge`."""


class Poisoner(Protocol):
    """The method that an attack must have."""

    def poison(self, round: Round, attackers: Sequence[int]) -> Sequence[Upload]:
        """Return the attackers' uploads of one round; see `Attack.poison`."""


class Defense:
    """A rule that decides which uploads enter the new global model.

    A subclass implements `judge` and declares the keys of its `defense_params` in `Settings`. State over rounds must be
    keyed by client id, since clients may join and leave.

    Args:
        settings: checked values of `Settings`, from `defense_params` in the YAML; None: the defaults.

    Raises:
        TypeError: if the settings are not an instance of `Settings`.
        ValueError: if they hold `pre` or `then`, which `composed.build` applies.

    Example:
        >>> from fedml_gradcam_ae import Defense, Verdict
        >>> class PlainMean(Defense):
        ...     def judge(self, round):
        ...         clients = len(round.uploads)
        ...         return Verdict(weights=[1 / clients] * clients)
        >>> PlainMean().state()
        {}
    """

    Settings: type[DefenseSettings] = DefenseSettings
    settings: Any = None
    # Why it makes no sense that another rule aggregates what this one keeps (`then`), as a clause; None: it does.
    not_composed: ClassVar[str | None] = None
    # Whether the rule's state is about single clients, so that it cannot judge groups that change from round to round.
    remembers_clients: ClassVar[bool] = False

    def __init__(self, settings: Any = None) -> None:
        self.settings = _checked_settings(type(self), settings)
        if self.settings.pre or self.settings.then is not None:
            raise ValueError(
                f"{type(self).__name__} alone applies neither `pre` nor `then`: build the composition with "
                f"fedml_gradcam_ae.defenses.shared.composed.build({type(self).__name__}, settings)."
            )

    def judge(self, round: Round) -> Verdict:
        """Judge the uploads of one round.

        Args:
            round: at least one upload, each canonical and finite.

        Returns:
            The weights of the uploads, or the aggregate itself, with flags, scores and the like; see `Verdict`.

        Raises:
            TooFewUploads: if there are fewer uploads than the rule's guarantee needs.
        """
        raise NotImplementedError

    def protects(self, clients: int) -> bool:
        """Return whether the rule, with its settings, withstands one malicious upload in a round of so many clients.

        It does if the aggregate stays as near to the honest uploads as they are to the global model, whatever the one
        upload holds. By default a rule that assumes f malicious clients does where f is at least 1, and any other rule
        among three clients or more, where the honest ones are the majority.

        Args:
            clients: the number of clients a round.

        Example:
            >>> from fedml_gradcam_ae.defenses.median import Median
            >>> from fedml_gradcam_ae.defenses.multi_krum import MultiKrum
            >>> Median().protects(3), MultiKrum().protects(4), MultiKrum().protects(5)  # 0.2 of 4 clients is none
            (True, False, True)
        """
        settings = self.settings
        if settings is None:  # a subclass whose `__init__` keeps none
            return clients >= 3
        expects_one = not isinstance(settings, AssumesMalicious) or settings.assumed(clients) >= 1
        return bool(clients >= 3 and expects_one and settings.allows(clients))

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Check, before any training, that the rule can work with this network and these data.

        Args:
            network: a private copy of the architecture, in eval mode.
            test_data: the server's test data, batches (images, labels).

        Raises:
            ValueError: if the rule cannot work with them.
        """

    def state(self) -> dict[str, Any]:
        """Return the state that must survive a restart: numbers, text, tensors, and containers of them."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state.

        Args:
            state: what `state` returned.
        """

    def release(self, client: ClientId) -> None:
        """Forget the evidence of earlier rounds against a client, so that it is judged like any other client.

        Args:
            client: the client's id.
        """

    def start_for(self, client: ClientId, global_model: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the state dict that a client starts its training from.

        Args:
            client: the client's id.
            global_model: the state dict of the global model.
        """
        return global_model

    def predictor(self, network: nn.Module) -> nn.Module:
        """Return the module whose predictions are tested as those of the federation.

        Args:
            network: the architecture with the global model's weights.
        """
        return network


class Attack:
    """A rule that makes what malicious clients upload in place of the model that they trained.

    A subclass implements `poison` and declares the keys of its `attack_params` in `Settings`.

    Args:
        settings: checked values of `Settings`, from `attack_params` in the YAML; None: the defaults.

    Raises:
        TypeError: if the settings are not an instance of `Settings`.

    Example:
        >>> from fedml_gradcam_ae import Attack
        >>> class Stale(Attack):
        ...     def poison(self, round, attackers):
        ...         return [round.global_model for _ in attackers]
        >>> Stale().settings.attackers
        1
    """

    Settings: type[AttackSettings] = AttackSettings
    settings: Any = None

    def __init__(self, settings: Any = None) -> None:
        self.settings = _checked_settings(type(self), settings)

    def poison(self, round: Round, attackers: Sequence[int]) -> Sequence[Upload]:
        """Return the attackers' uploads of one round.

        Args:
            round: the round with the honest upload of every client, the attackers included, and with `local_data`.
            attackers: positions of the malicious clients in `round.client_ids`.

        Returns:
            One state dict for each of `attackers`, in their order.
        """
        raise NotImplementedError

    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Check, before any training, that the attack can work with this network and these data.

        Args:
            network: a private copy of the architecture, in eval mode.
            test_data: the server's test data, batches (images, labels).

        Raises:
            ValueError: if the attack cannot work with them.
        """

    def poison_data(
        self, network: nn.Module, data: Iterable[Any], attacker: int = 0, attackers: int = 1
    ) -> Iterable[Any]:
        """Return the batches that an attacker trains on in one round.

        Args:
            network: the model that it trains; while the batches are read first, it has the weights that the training
                starts from.
            data: the attacker's own batches (images, labels).
            attacker: the attacker's number among all attackers, from 0.
            attackers: the number of all attackers, of the run or, where they are drawn anew, of the round.
        """
        return data

    def triggered(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return test images that a successful attack has classified as it wants, for the attack success rate.

        Args:
            images: (images, channels, height, width), some of the server's test images.
            labels: (images,), int64, their classes, -1 for an image without a label.

        Returns:
            Images, with the trigger if there is one, and the class, (images,), that the attack wants for each; None
            for an attack that wants no class.
        """
        return None


def _checked_settings(cls: type[Defense | Attack], settings: object) -> Any:
    """Return the settings of a rule, or the defaults in place of None."""
    if settings is None:
        return cls.Settings()
    if isinstance(settings, cls.Settings):
        return settings
    name, values = cls.__name__, "..."
    if isinstance(settings, Mapping):
        values = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    raise TypeError(
        f"{name} takes an instance of {name}.Settings, found {type(settings).__qualname__}: use "
        f"{name}({name}.Settings({values}))."
    )


def overrides(cls: type[Any] | None, method: str) -> bool:
    """Return whether a defense or an attack overrides an optional method of its base class.

    Args:
        cls: a class; None, or one that is neither a defense nor an attack, overrides nothing.
        method: the name of a method.

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
    """Judge a round, and add the time that this took to the verdict's `seconds` as `total`.

    Args:
        defense: the rule.
        round: the uploads to judge.

    Raises:
        ValueError: if the verdict does not have one entry for each client of the round.
        TypeError: if the defense does not answer with a `Verdict`.

    Example:
        >>> from torch import nn
        >>> from fedml_gradcam_ae import Defense, Round, Verdict
        >>> class FirstOnly(Defense):
        ...     def judge(self, round):
        ...         return Verdict(weights=[1.0] + [0.0] * (len(round.uploads) - 1))
        >>> round = Round(
        ...     number=1,
        ...     client_ids=["a", "b"],
        ...     uploads=[{}, {}],
        ...     samples=[20, 20],
        ...     global_model={},
        ...     network=nn.Module(),
        ...     test_data=[],
        ... )
        >>> verdict = timed_judge(FirstOnly(), round)
        >>> verdict.weights, list(verdict.seconds)
        ([1.0, 0.0], ['total'])
    """
    start = perf_counter()
    verdict: object = defense.judge(round)
    if not isinstance(verdict, Verdict):
        raise TypeError(f"{type(defense).__name__}.judge must return a Verdict, found {type(verdict).__name__}.")
    seconds = {**verdict.seconds, "total": perf_counter() - start}
    if verdict.clients not in (None, len(round.client_ids)):
        raise ValueError(
            f"{type(defense).__name__}.judge answered for {verdict.clients} clients, where the round has "
            f"{len(round.client_ids)}: {', '.join(map(str, round.client_ids))}."
        )
    return replace(verdict, seconds=seconds)
