"""The parameters of a defense or an attack: declared as a pydantic model, read from YAML, checked at the start."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import override

from fedml_gradcam_ae.contract.round import TooFewUploads

Model = TypeVar("Model", bound="Parameters")


class SettingsError(ValueError):
    """A mistake in the configuration; the message says what is wrong, what was found and what would be right."""


class Parameters(BaseModel):
    """Base class of all parameters: no unknown keys, no silent conversions, no changes afterward."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DefenseSettings(Parameters):
    """The settings that all defenses share: what a rule is composed with."""

    pre: list[str | dict[str, Any]] = Field(
        default=[],
        description="steps in front of the rule, in their order: `norm_clipping`, `nnm`, `arc`, `bucketing`, each a "
        "name or a mapping with a `type` and its settings",
    )
    then: str | dict[str, Any] | None = Field(
        default=None,
        description="another rule, which aggregates the uploads that this one keeps: a name or a mapping with a `type` "
        "and its settings; null: this rule does",
    )

    def check_clients(self, clients: int) -> None:
        """Check that the defense can work with the number of clients.

        Args:
            clients: the number of clients a round.

        Raises:
            ValueError: if the defense needs more clients.
        """

    def allows(self, clients: int) -> bool:
        """Return whether `check_clients` accepts the number of clients.

        Args:
            clients: the number of clients a round.
        """
        try:
            self.check_clients(clients)
        except ValueError:
            return False
        return True


def _check_malicious(value: int | float) -> int | float:
    if isinstance(value, float) and not 0 <= value < 0.5:
        raise ValueError(
            "a share of malicious clients must be at least 0 and below 0.5 (a number of them has no point)"
        )
    if value < 0:
        raise ValueError("the number of malicious clients must be at least 0")
    return value


Malicious = Annotated[int | float, AfterValidator(_check_malicious)]


class AssumesMalicious(DefenseSettings):
    """The settings of defenses that assume a number of malicious clients."""

    malicious: Malicious = Field(
        default=0.2, description="f, the assumed number of malicious clients in a round, or their share (0.2)"
    )

    @override
    def check_clients(self, clients: int) -> None:
        """Check that there are enough clients for the rule's guarantee.

        Args:
            clients: the number of clients a round.

        Raises:
            ValueError: if there are too few.

        Example:
            >>> AssumesMalicious(malicious=2).check_clients(5)
            >>> AssumesMalicious(malicious=2).check_clients(4)
            Traceback (most recent call last):
                ...
            ValueError: malicious: 2 of 4 clients a round are too many, since the rule needs 5 clients
        """
        malicious = self.assumed(clients)
        if clients < (needed := self.needed(malicious)):
            raise ValueError(
                f"malicious: {malicious} of {clients} clients a round are too many, since the rule needs "
                f"{needed} clients"
            )

    def assumed(self, clients: int, rejected: int = 0) -> int:
        """Return f, the assumed number of malicious clients among the usable uploads.

        Rejected uploads count as malicious, so they reduce f.

        Args:
            clients: the number of usable uploads.
            rejected: the number of uploads that the gate rejected.

        Example:
            >>> AssumesMalicious(malicious=0.2).assumed(10), AssumesMalicious(malicious=0.2).assumed(9, rejected=1)
            (2, 1)
        """
        if isinstance(self.malicious, int):
            f = self.malicious
        else:
            f = math.floor(self.malicious * (clients + rejected) + 1e-9)
        return max(0, f - rejected)

    def needed(self, malicious: int) -> int:
        """Return how many usable uploads the rule's guarantee needs: 2f + 1, a majority of benign ones.

        Args:
            malicious: f.

        Example:
            >>> AssumesMalicious().needed(2)
            5
        """
        return 2 * malicious + 1

    def faced(self, clients: int, rejected: int = 0) -> int:
        """Return f, as `assumed` does, for a rule that is about to judge the usable uploads.

        Args:
            clients: the number of usable uploads.
            rejected: the number of uploads that the gate rejected.

        Raises:
            TooFewUploads: if the rule's guarantee needs more usable uploads.

        Example:
            >>> AssumesMalicious(malicious=2).faced(5)
            2
            >>> AssumesMalicious(malicious=2).faced(4)
            Traceback (most recent call last):
                ...
            fedml_gradcam_ae.contract.round.TooFewUploads: 5 usable uploads are needed, found 4
        """
        malicious = self.assumed(clients, rejected)
        if clients < (needed := self.needed(malicious)):
            raise TooFewUploads(needed, clients)
        return malicious


def _check_attackers(value: int | float | list[int | str]) -> int | float | list[int | str]:
    if isinstance(value, list):
        if not value or len(set(value)) != len(value):
            raise ValueError("a list of attackers needs at least one client id and no id twice")
    elif isinstance(value, float):
        if not 0 < value <= 1:
            raise ValueError("a share of attackers must be above 0 and at most 1 (a number of attackers has no point)")
    elif value < 1:
        raise ValueError("the number of attackers must be at least 1 (enable_attack: false turns the attack off)")
    return value


def _check_at_once(value: int | list[int] | None) -> int | list[int] | None:
    if isinstance(value, list) and (len(value) != 2 or not 0 <= value[0] <= value[1] or value[1] < 1):
        raise ValueError("a range must be [least, most] with 0 <= least <= most and most at least 1, such as [1, 4]")
    if isinstance(value, int) and value < 1:
        raise ValueError("must be at least 1")
    return value


class AttackSettings(Parameters):
    """The settings that all attacks share."""

    attackers: Annotated[int | float | list[int | str], AfterValidator(_check_attackers)] = Field(
        default=1, description="the malicious clients: their number, their share (0.1), or a list of client ids"
    )
    redraw: Literal["never", "every_round"] = Field(
        default="never",
        description="`never`: the attackers are drawn once per run; `every_round`: anew among each round's clients",
    )
    at_once: Annotated[int | list[int] | None, AfterValidator(_check_at_once)] = Field(
        default=None,
        description="how many of the attackers attack in a round, drawn anew each round: a number, or a range "
        "[least, most] from which the number is drawn; null: all of them",
    )
    first_round: int = Field(default=1, ge=1, description="the first round with an attack (rounds count from 1)")
    last_round: int | None = Field(default=None, ge=1, description="the last round with an attack; null: no end")
    active: int | None = Field(
        default=None, ge=1, description="number of consecutive rounds with an attack before a pause; null: no pauses"
    )
    pause: int = Field(default=0, ge=0, description="number of rounds of each pause")
    claimed_samples: float | None = Field(
        default=None, gt=0, description="the number of samples that each attacker claims; null: its true number"
    )
    refresh_statistics: bool = Field(
        default=False,
        description="whether each attacker uploads the running statistics of BatchNorm that fit its poisoned weights: "
        "those of its honest training, moved by what the poisoned weights change on its own images; false: those that "
        "the attack leaves there",
    )
    seed: int = Field(
        default=0, ge=0, description="seed of the choice of attackers and of all random numbers of the attack"
    )


def read_settings(model: type[Model], params: object, where: str, owner: str, without: Collection[str] = ()) -> Model:
    """Return the checked settings of a defense or an attack.

    Args:
        model: the declaration, a subclass of `Parameters`.
        params: what the YAML holds; None stands for an empty mapping.
        where: the name under which the user knows this mapping, for example `defense_params`.
        owner: the type that the settings belong to, for example `gradcam_ae`.
        without: keys of the declaration that the message about an unknown key does not list, since the caller refuses
            them.

    Raises:
        SettingsError: listing all mistakes.

    Example:
        >>> read_settings(AssumesMalicious, {"malicious": 2}, "defense_params", "krum").malicious
        2
        >>> read_settings(AssumesMalicious, {"malicous": 2}, "defense_params", "krum")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        fedml_gradcam_ae.contract.settings.SettingsError: Unknown key 'malicous' ... Did you mean 'malicious'? ...
    """
    if params is None:
        params = {}
    if not isinstance(params, Mapping):
        raise SettingsError(f"{where} must be a mapping of keys to values, found {params!r}.")
    valid = [key for key in model.model_fields if key not in without]
    try:
        return model(**{str(key): value for key, value in params.items()})
    except ValidationError as error:
        raise SettingsError(explain(error, where, owner, valid)) from None


def explain(error: ValidationError, where: str, owner: str, valid: Iterable[str]) -> str:
    """Return a pydantic error in the words of the user's YAML, one line per mistake.

    Args:
        error: the error.
        where: the name under which the user knows the mapping, for example `defense_params`.
        owner: the type that the settings belong to, for example `gradcam_ae`.
        valid: the valid keys.

    Example:
        >>> try:
        ...     AssumesMalicious(malicious="two")
        ... except ValidationError as error:
        ...     print(explain(error, "defense_params", "krum", ["malicious"]).splitlines()[0])
        defense_params.malicious: expected a valid integer, found 'two' (text).
    """
    lines: dict[str, list[str]] = {}
    for problem in error.errors():
        key = str(problem["loc"][0]) if problem["loc"] else ""
        found = problem["input"]
        if problem["type"] == "extra_forbidden":
            lines.setdefault(key, []).append(unknown(f"key {key!r} in {where} of {owner}", key, valid))
        elif problem["type"] == "missing":
            lines.setdefault(key, []).append(f"{where}.{key} is missing: {owner} needs it.")
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            place = f"{where}.{key}" if key else where
            text = f"{place}: expected {message}" if problem["type"] != "value_error" else f"{place}: {message}"
            if key and problem["type"] == "value_error":
                text += f", found {found!r}"
            elif key:
                text += f", found {found!r} ({_kind(found)})"
            lines.setdefault(key, []).append(f"{text}.{_hint(found)}")
    return "\n".join(line for group in lines.values() for line in dict.fromkeys(group))


def unknown(what: str, name: str, valid: Iterable[str]) -> str:
    """Return a message "Unknown ..." with the nearest valid name and all valid names.

    Args:
        what: what is unknown, in words.
        name: the name that was found.
        valid: the valid names.

    Example:
        >>> unknown("defense_type 'krun'", "krun", ["median", "krum"])
        "Unknown defense_type 'krun'. Did you mean 'krum'? Valid: krum, median."
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {what}.{guess} Valid: {', '.join(names) if names else 'none'}."


def _kind(value: object) -> str:
    kinds = {str: "text", bool: "true/false", int: "a whole number", float: "a number", list: "a list"}
    return kinds.get(type(value), "nothing" if value is None else type(value).__name__)


def _hint(value: object) -> str:
    if isinstance(value, str) and "e" in value.lower():
        try:
            float(value)
        except ValueError:
            return ""
        return f" YAML reads {value} as text: write it with a point, 1.0e-4 for 1e-4."
    return ""
