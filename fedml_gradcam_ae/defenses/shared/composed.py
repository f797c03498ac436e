"""Composition: steps in front of a rule (`pre`), and another rule that aggregates what the rule keeps (`then`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

from torch import nn
from typing_extensions import override

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.interfaces import Defense, overrides
from fedml_gradcam_ae.contract.round import Round, TooFewUploads, Verdict
from fedml_gradcam_ae.contract.settings import (
    AssumesMalicious,
    DefenseSettings,
    SettingsError,
    read_settings,
    unknown,
)
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.shared.in_front import InFront, carry_back
from fedml_gradcam_ae.defenses.steps.average_buckets import BucketingSettings, average_buckets
from fedml_gradcam_ae.defenses.steps.clip_adaptively import clip_adaptively
from fedml_gradcam_ae.defenses.steps.clip_norms import NormClippingSettings, clip_norms
from fedml_gradcam_ae.defenses.steps.mix_with_nearest import mix_with_nearest

# The steps that `pre` can name, each with its settings.
STEPS: dict[str, tuple[type[DefenseSettings], Callable[[Round, Any], Round]]] = {
    "norm_clipping": (NormClippingSettings, clip_norms),
    "nnm": (AssumesMalicious, mix_with_nearest),
    "arc": (AssumesMalicious, clip_adaptively),
    "bucketing": (BucketingSettings, average_buckets),
}
COMPOSITION = {"pre", "then"}  # the keys that steps and the rule of `then` do not have themselves
Step = tuple[Callable[[Round, Any], Round], DefenseSettings]


def build(cls: type[Defense], settings: DefenseSettings) -> Defense:
    """Return a defense with these settings, composed with the steps and the rule that `pre` and `then` name.

    Args:
        cls: the class of the rule.
        settings: its checked settings.

    Raises:
        SettingsError: if `pre` or `then` is wrong, or does not go together with the rule.

    Example:
        Three times the same update and a long one, clipped to the median length before they are averaged:

        >>> import torch
        >>> from fedml_gradcam_ae.defenses.multi_krum import MultiKrum
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.0, 1.0, 9.0)],
        ...     samples=[10.0] * 4,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> clipped = build(MultiKrum, MultiKrum.Settings(malicious=0, pre=["norm_clipping"]))
        >>> clipped.judge(round).model
        {'weight': tensor([[1.]])}
        >>> middle = build(MultiKrum, MultiKrum.Settings(malicious=0, then="median"))
        >>> middle.judge(round).model
        {'weight': tensor([[1.]])}
    """
    plain = settings.model_copy(update={"pre": [], "then": None})
    if not settings.pre and settings.then is None:
        return cls(plain)
    check(cls, settings)
    steps = [(STEPS[name][1], step) for name, step in _read_steps(settings)]
    other = _read_then(settings)
    return Composed(cls(plain), steps, None if other is None else other[0](other[1]))


def check(cls: type[Defense], settings: DefenseSettings, clients: int | None = None) -> None:
    """Check that the rule can be composed with `pre` and `then`, and that there are enough clients for all of them.

    Args:
        cls: the class of the rule.
        settings: its settings.
        clients: the number of clients a round; None: not checked.

    Raises:
        SettingsError: if it cannot, naming the reason.
        ValueError: if there are too few clients.
    """
    if (settings.pre or settings.then is not None) and overrides(cls, "start_for"):
        raise SettingsError(
            f"{cls.__name__} has clients start from different models, so that their uploads are no updates of one "
            "global model: leave `pre` and `then` out."
        )
    other = _read_then(settings)
    uploads = clients
    for name, step in _read_steps(settings):
        if clients is not None and uploads is not None:
            try:
                facing(step, clients, 0).check_clients(uploads)
            except ValueError as error:
                raise ValueError(f"pre, {name}: {error}") from None
            if isinstance(step, BucketingSettings):
                uploads = step.buckets(uploads)
        if isinstance(step, BucketingSettings):
            if issubclass(cls, InFront):
                raise SettingsError(
                    f"pre, {name}: {cls.__name__} is a step in front of a rule: list both steps in `pre` of it."
                )
            for part in (cls, *(other or ())[:1]):
                if part.remembers_clients:
                    raise SettingsError(
                        f"pre, {name}: {part.__name__} remembers each client over the rounds, and buckets are drawn "
                        "anew each round: leave one of the two out."
                    )
    if clients is not None and uploads is not None:
        try:
            facing(settings, clients, 0).check_clients(uploads)
        except ValueError as error:
            buckets = f"{clients} clients a round make {uploads} buckets: "
            raise ValueError(f"{'' if uploads == clients else buckets}{error}") from None
    if other is not None:
        if cls.not_composed is not None:
            raise SettingsError(f"then: {cls.__name__} goes in front of no other rule, since {cls.not_composed}.")
        if uploads is not None and clients is not None:
            try:
                facing(other[1], clients, 0).check_clients(uploads)
            except ValueError as error:
                raise ValueError(f"then: {error}") from None


class Composed(Defense):
    """A rule on a transformed round, and another rule that aggregates what the first one keeps.

    Args:
        rule: decides who is left out, and without `then` how the others are aggregated.
        steps: transform the round before, in their order.
        then: aggregates the uploads that the rule keeps; None: the rule does.
    """

    def __init__(self, rule: Defense, steps: Sequence[Step] = (), then: Defense | None = None) -> None:
        super().__init__(rule.settings)
        self.rule, self.steps, self.then = rule, steps, then
        self._settings = [one.settings for one in self.rules]

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the verdict of all of them together, as one on the uploads.

        Raises:
            TooFewUploads: if there are too few uploads for a step or a rule.
        """
        start, judged = perf_counter(), round
        drawn: list[BucketingSettings] = []
        try:
            for step, settings in self.steps:
                judged = step(judged, self._facing(settings, judged, round))
                if isinstance(settings, BucketingSettings):
                    drawn.append(settings)
            before = perf_counter()
            for rule, settings in zip(self.rules, self._settings, strict=True):
                rule.settings = self._facing(settings, judged, round)
            verdict = self.rule.judge(judged)
            if self.then is not None:
                verdict = aggregated(verdict, judged, self.then)
        except TooFewUploads as error:
            raise _of_clients(error, drawn, len(round.uploads)) from None
        if judged is not round:
            verdict = carry_back(verdict, judged, round)
            verdict = replace(verdict, seconds={"pre": before - start, **verdict.seconds})
        return verdict

    @override
    def protects(self, clients: int) -> bool:
        """Return whether one of the rules withstands one malicious upload, and no step spreads it before.

        Clipping withstands it as well: to the length of the others, or of those that are assumed honest.
        """
        uploads, clipped = clients, False
        for step, settings in self.steps:
            assumed = settings.assumed(clients) if isinstance(settings, AssumesMalicious) else 1
            if isinstance(settings, BucketingSettings):
                uploads = settings.buckets(uploads)
            elif step is mix_with_nearest and assumed < 1:
                return False
            elif step is clip_norms or step is clip_adaptively:
                clipped |= uploads >= 3 and assumed >= 1
        facing_them = [type(rule)(facing(rule.settings, clients, 0)) for rule in self.rules]
        return clipped or any(rule.protects(uploads) for rule in facing_them)

    @override
    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Prepare the rules; see `Defense.prepare`."""
        for rule in self.rules:
            rule.prepare(network, test_data)

    @override
    def state(self) -> dict[str, Any]:
        """Return the states of the rules."""
        return {"rule": self.rule.state(), "then": {} if self.then is None else self.then.state()}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.rule.restore(state["rule"])
        if self.then is not None:
            self.then.restore(state["then"])

    @override
    def release(self, client: ClientId) -> None:
        """Forget a client's past in the rules."""
        for rule in self.rules:
            rule.release(client)

    @override
    def predictor(self, network: nn.Module) -> nn.Module:
        """Return the module whose predictions are tested, of both rules."""
        for rule in self.rules:
            network = rule.predictor(network)
        return network

    @staticmethod
    def _facing(settings: DefenseSettings, judged: Round, round: Round) -> DefenseSettings:
        """Return the settings for what is judged: with f as a number where the uploads are buckets of clients."""
        if len(judged.uploads) == len(round.uploads):
            return settings
        return facing(settings, len(round.uploads), len(round.rejected))

    @property
    def rules(self) -> list[Defense]:
        """The rule, and the one that aggregates what it keeps if there is one."""
        return [self.rule] if self.then is None else [self.rule, self.then]


def _of_clients(error: TooFewUploads, drawn: Sequence[BucketingSettings], clients: int) -> TooFewUploads:
    """Return an error that counts clients in place of the buckets that they are in.

    Args:
        error: the error of a rule or a step, which may count buckets.
        drawn: the bucketing steps before it, in their order.
        clients: the number of usable uploads.
    """
    needed, found = error.needed, error.found
    for step in reversed(drawn):
        needed, found = step.clients_needed(needed), step.size * found
    return TooFewUploads(needed, min(found, clients))


def parts_of(defense: Defense | None) -> list[Defense]:
    """Return the rules that a defense is composed of; the defense itself where it is no composition.

    Args:
        defense: a defense; None has no parts.
    """
    if isinstance(defense, Composed):
        return defense.rules
    return [] if defense is None else [defense]


def facing(settings: DefenseSettings, clients: int, rejected: int) -> DefenseSettings:
    """Return a rule's settings with f as a number, for a rule that judges buckets of clients.

    Each malicious client can be in a bucket of its own, so that a share of the buckets would be too few.

    Args:
        settings: of a rule.
        clients: the number of usable uploads.
        rejected: the number of uploads that the gate rejected.

    Example:
        >>> facing(AssumesMalicious(malicious=0.2), clients=20, rejected=0).malicious
        4
    """
    if not isinstance(settings, AssumesMalicious):
        return settings
    return settings.model_copy(update={"malicious": settings.assumed(clients, rejected)})


def aggregated(verdict: Verdict, round: Round, then: Defense) -> Verdict:
    """Return a verdict whose aggregate is another rule's, on the uploads that the verdict keeps.

    Flags, scores and reasons stay; a client that either rule excludes is excluded.

    Args:
        verdict: decides who is kept; a verdict that excludes no client by name keeps all.
        round: the round that it judged.
        then: the rule that aggregates.

    Raises:
        TooFewUploads: if too few uploads are kept for the other rule.
    """
    excluded = verdict.excluded or [False] * len(round.uploads)
    kept = [position for position, out in enumerate(excluded) if not out]
    if not kept:
        return verdict
    start = perf_counter()
    left_out = {client: "left out" for client, out in zip(round.client_ids, excluded, strict=True) if out}
    # Clients that the first rule leaves out are no longer among the f that the other rule is to withstand.
    other = then.judge(replace(round.only(kept), rejected={**round.rejected, **left_out}))
    seconds = {**verdict.seconds, "then": perf_counter() - start}
    out, weights = list(excluded), [0.0] * len(excluded)
    for place, position in enumerate(kept):
        out[position] = bool(other.excluded[place]) if other.excluded is not None else False
        weights[position] = 0.0 if other.weights is None else float(other.weights[place])
    return replace(
        verdict,
        excluded=out,
        weights=None if other.weights is None else weights,
        model=other.model,
        seconds=seconds,
        reasons={**other.reasons, **verdict.reasons},
    )


def _read_steps(settings: DefenseSettings) -> list[tuple[str, DefenseSettings]]:
    """Return the names and the checked settings of the steps; f is the rule's where a step has that key as well."""
    found = []
    for number, entry in enumerate(settings.pre):
        name, params = _entry(entry, f"pre[{number}]")
        if name not in STEPS:
            raise SettingsError(unknown(f"step {name!r} in pre", name, STEPS))
        model = STEPS[name][0]
        shared = _shared(settings, model)
        if params.keys() & COMPOSITION:
            raise SettingsError(f"pre[{number}]: a step has no `pre` or `then` of its own: list all steps in order.")
        found.append((name, read_settings(model, {**shared, **params}, f"pre[{number}]", name, COMPOSITION)))
    return found


def _read_then(settings: DefenseSettings) -> tuple[type[Defense], DefenseSettings] | None:
    """Return the class and the checked settings of the rule that aggregates; None without one."""
    if settings.then is None:
        return None
    name, params = _entry(settings.then, "then")
    rules = registry.defenses()
    if name not in rules:
        raise SettingsError(unknown(f"rule {name!r} in then", name, rules))
    cls = rules[name]
    if overrides(cls, "start_for"):
        raise SettingsError(f"then: {name} has clients start from different models: it can only stand alone.")
    shared = _shared(settings, cls.Settings)
    if params.keys() & COMPOSITION:
        raise SettingsError(f"then: {name} takes no `pre` or `then` here: one rule decides, the other aggregates.")
    return cls, read_settings(cls.Settings, {**shared, **params}, "then", name, COMPOSITION)


def _shared(settings: DefenseSettings, model: type[DefenseSettings]) -> dict[str, Any]:
    """Return f, for steps and rules that have this key like the rule itself."""
    if isinstance(settings, AssumesMalicious) and issubclass(model, AssumesMalicious):
        return {"malicious": settings.malicious}
    return {}


def _entry(entry: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Return the type and the settings of an entry, which is a name or a mapping with a `type`."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and isinstance(entry.get("type"), str):
        return str(entry["type"]), {str(key): value for key, value in entry.items() if key != "type"}
    raise SettingsError(
        f"{where} must be a type or a mapping with a type, such as nnm or {{type: nnm, malicious: 2}}, found {entry!r}."
    )
