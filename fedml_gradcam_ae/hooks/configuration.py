"""Checks of the user's FedML configuration before a run: types, settings, and whether FedML's path honors them."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import fedml.arguments
from pydantic import ValidationError, create_model

from fedml_gradcam_ae.attacks.shared.attackers import check_attackers
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.interfaces import overrides
from fedml_gradcam_ae.contract.settings import (
    AttackSettings,
    DefenseSettings,
    Parameters,
    SettingsError,
    explain,
    read_settings,
    unknown,
)
from fedml_gradcam_ae.contract.yaml_file import read_sections
from fedml_gradcam_ae.defenses.shared import composed
from fedml_gradcam_ae.hooks import builtin, shared_names
from fedml_gradcam_ae.hooks.cross_silo.settings import check_sections
from fedml_gradcam_ae.hooks.fedml_keys import keys_of_fedml
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.simulation import optimizers
from fedml_gradcam_ae.hooks.simulation.settings import check_simulation_section
from fedml_gradcam_ae.hooks.upload_settings import check_upload_section


@dataclass(frozen=True)
class Requested:
    """Defense or attack type that the user turned on.

    Attributes:
        name: the name of the type.
        settings: its checked parameters.
        cls: the plug-in's class; None for one of FedML's own types.
        shared: a line that says what runs, for a name that FedML has as well; None for other names.
        taken: FedML's keys that became parameters of the plug-in's class.
    """

    name: str
    settings: Parameters
    cls: type[Any] | None = None
    shared: str | None = None
    taken: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Any:
        """Return a new instance of the plug-in's class, composed with what `pre` and `then` name."""
        assert self.cls is not None
        if isinstance(self.settings, DefenseSettings):
            return composed.build(self.cls, self.settings)
        return self.cls(self.settings)


@dataclass(frozen=True)
class Side:
    """Names that FedML uses for one of the two sides, defense or attack.

    Attributes:
        word: "defense" or "attack".
        ours: function that returns the plug-in's classes by name.
        fedml: the keys of FedML's own types, by name of the type.
        more_keys: further keys that FedML reads in this section.
    """

    word: str
    ours: Any
    fedml: Mapping[str, type[builtin.Keys]]
    more_keys: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        """Return the section's name in the YAML file, such as `defense_args`."""
        return f"{self.word}_args"

    @property
    def params(self) -> str:
        """Return the key that holds the parameters of a plug-in type, such as `defense_params`."""
        return f"{self.word}_params"


DEFENSE = Side("defense", registry.defenses, builtin.DEFENSES)
ATTACK = Side("attack", registry.attacks, builtin.ATTACKS, more_keys=("attack_prob",))


def patch(patches: Patches) -> None:
    """Make FedML report a missing or unreadable configuration file."""
    patches.replace(
        fedml.arguments.Arguments,
        "load_yaml_config",
        lambda _self, path: read_sections(path) if path else None,
        mends="takes a missing or broken YAML file for an empty one",
    )


def check(args: Any) -> None:
    """Check all settings of defenses, attacks and uploads, and in a cross-silo run those of the transport.

    Args:
        args: FedML's args.

    Raises:
        SettingsError: if a setting is wrong, or if FedML's path would ignore the defense or the attack.
    """
    if getattr(args, "training_type", None) == "cross_silo":
        check_sections(args)
    else:
        _check_round(args)
    check_upload_section(args)
    check_simulation_section(args)
    optimizers.check_known(args)
    for side in (DEFENSE, ATTACK):
        _check_switch(side, args)
        found = requested(side, args)
        if found is not None:
            _check_section(side, args, found)
            _check_path(side, args, found)


def requested(side: Side, args: Any) -> Requested | None:
    """Return the type that is turned on for one side, with its checked parameters.

    Args:
        side: `DEFENSE` or `ATTACK`.
        args: FedML's args.

    Returns:
        The requested type; None if the side is off.

    Raises:
        SettingsError: for an unknown type, an unknown key, a wrong kind of value or a value out of range.
    """
    enabled = getattr(args, f"enable_{side.word}", False)
    if not isinstance(enabled, bool):
        raise SettingsError(f"enable_{side.word} must be true or false, found {enabled!r}.")
    if not enabled:
        return None
    ours = side.ours()
    asked = getattr(args, f"{side.word}_type", None)
    if not isinstance(asked, str):
        names = ", ".join(_names(side))
        raise SettingsError(f"{side.word}_type must name a type, found {asked!r}. Valid: {names}.")
    name = asked.strip()
    if name in ours:
        return _requested_of_ours(side, name, args)
    own = name.removeprefix(builtin.PREFIX)
    if own not in side.fedml:
        raise SettingsError(unknown(f"{side.word}_type {name!r}", name, _names(side)))
    return Requested(own, _read_flat(side, own, args))


def _requested_of_ours(side: Side, name: str, args: Any) -> Requested:
    """Return the requested type of the plug-in's, with FedML's keys taken over where both have the name."""
    ours, shared, taken = side.ours(), None, {}
    params, where = getattr(args, side.params, None), side.params
    if params is None and name in side.fedml:
        given = _given_keys(side, name, args)
        if side is DEFENSE and name in shared_names.SHARED:
            asked, taken, where = name, given, side.section if given else side.params
            name, params = shared_names.SHARED[asked].translate(taken, _number(args, "client_num_per_round"))
            shared = shared_names.explanation(asked, taken, name, params)
        else:
            _check_unmixed(side, name, given, args)
    model = ours[name].Settings
    settings = read_settings(model, with_train_args(model, _nested(params, args), args), where, name)
    if isinstance(settings, AttackSettings):
        check_attackers(settings, _client_ids(args))
    elif isinstance(settings, DefenseSettings):
        place = f"{side.section}, {shared_names.as_text(taken)}" if taken else f"{side.params} of {name}"
        try:
            composed.check(ours[name], settings, _number(args, "client_num_per_round"))
        except SettingsError as error:
            raise SettingsError(f"{place}: {error}") from None
        except ValueError as error:
            raise SettingsError(f"{place}: {error}.") from None
    return Requested(name, settings, ours[name], shared, taken)


def _names(side: Side) -> list[str]:
    """Return all valid types; a name of FedML's that a type of ours has as well stands with its prefix."""
    ours = side.ours()
    return [*sorted(ours), *sorted(builtin.PREFIX + name if name in ours else name for name in side.fedml)]


def _given_keys(side: Side, name: str, args: Any) -> dict[str, Any]:
    """Return the checked keys of FedML's type that are given, by FedML's names.

    FedML reads them from one flat namespace. With a YAML file, only those count that stand in the sections of the
    defense or of the attack: `beta` in `train_args` is an optimizer's.
    """
    fields = side.fedml[name].model_fields
    path = getattr(args, "yaml_config_file", "")
    sections = read_sections(path) if path else {}
    nearby = {**sections.get(DEFENSE.section, {}), **sections.get(ATTACK.section, {})} if path else vars(args)
    values = {key: getattr(args, key) for key in fields if key in nearby and hasattr(args, key)}
    # FedML's type may need a key that has a default in the plug-in's, so that only the given ones are checked.
    given: Any = {key: (fields[key].annotation, fields[key]) for key in values}
    try:
        create_model(name, __base__=builtin.Keys, **given)(**values)
    except ValidationError as error:
        raise SettingsError(explain(error, side.section, name, fields)) from None
    return values


def _check_unmixed(side: Side, name: str, given: Mapping[str, Any], args: Any) -> None:
    """Reject keys of FedML's type beside a type of another package that took its name: only that package knows both."""
    other = ATTACK if side is DEFENSE else DEFENSE
    used = other.fedml.get(str(getattr(args, f"{other.word}_type", "")), builtin.Keys).model_fields
    if keys := [key for key in given if key not in used]:
        raise SettingsError(
            f"{side.word}_type {name!r} means the registered class's, but {', '.join(keys)} beside it belongs to "
            f"FedML's: write {side.word}_type: {builtin.PREFIX}{name} for FedML's, or give {side.params} (which may be "
            "{})."
        )


def with_train_args(model: type[Parameters], params: Any, args: Any) -> Any:
    """Return a rule's parameters, with defaults taken from `train_args` for the keys that declare such a source.

    Args:
        model: the rule's settings.
        params: the parameters that are given, a mapping; None: none.
        args: FedML's args.
    """
    inherited = {}
    for key, declared in model.model_fields.items():
        extra = declared.json_schema_extra
        source = extra.get("train_args") if isinstance(extra, dict) else None
        if source is not None and hasattr(args, str(source)):
            inherited[key] = getattr(args, str(source))
    if not inherited or not isinstance(params, Mapping | None):
        return params
    return {**inherited, **{key: value for key, value in (params or {}).items() if value is not None}}


def _nested(params: Any, args: Any) -> Any:
    """Return parameters in which the rules that `then` and `against` name have their defaults from `train_args`."""
    if not isinstance(params, Mapping):
        return params
    rules, found = DEFENSE.ours(), dict(params)
    then = found.get("then")
    entry = {"type": then} if isinstance(then, str) else then
    if isinstance(entry, Mapping) and entry.get("type") in rules:
        own = {key: value for key, value in entry.items() if key != "type"}
        found["then"] = {"type": entry["type"], **with_train_args(rules[entry["type"]].Settings, own, args)}
    if found.get("against") in rules:
        given = found.get("against_params")
        found["against_params"] = with_train_args(rules[found["against"]].Settings, given, args) or {}
    return found


def _read_flat(side: Side, name: str, args: Any) -> builtin.Keys:
    """Read and check the keys of one of FedML's own types from FedML's flat args."""
    model = side.fedml[name]
    values = {key: getattr(args, key) for key in model.model_fields if hasattr(args, key)}
    try:
        keys = model(**values)
    except ValidationError as error:
        raise SettingsError(explain(error, side.section, name, model.model_fields)) from None
    if getattr(args, side.params, None) is not None:
        raise SettingsError(
            f"{side.params} is for the plug-in's own types; {name} is FedML's: "
            f"write its keys straight under {side.section}: {', '.join(model.model_fields) or 'it has none'}."
        )
    clients = _number(args, "client_num_per_round")
    if isinstance(keys, builtin.Krum) and 2 * keys.byzantine_client_num + 2 > clients - keys.krum_param_m:
        most = max(0, (clients - keys.krum_param_m - 2) // 2)
        raise SettingsError(
            f"{side.section}.byzantine_client_num: FedML's {name} needs 2 * byzantine_client_num + 2 <= "
            f"client_num_per_round - krum_param_m, found 2 * {keys.byzantine_client_num} + 2 > "
            f"{clients} - {keys.krum_param_m}; at most {most} here."
        )
    if isinstance(keys, builtin.Byzantine) and keys.byzantine_client_num > clients:
        raise SettingsError(
            f"{side.section}.byzantine_client_num: found {keys.byzantine_client_num} attackers, "
            f"but {clients} clients per round."
        )
    return keys


def _check_switch(side: Side, args: Any) -> None:
    """Reject a type without the switch that turns it on: FedML would run without it and say nothing."""
    switch, asked = f"enable_{side.word}", getattr(args, f"{side.word}_type", None)
    if hasattr(args, switch):
        return
    path = getattr(args, "yaml_config_file", "")
    sections = read_sections(path) if path else {side.section: vars(args)}
    for section, keys in sections.items():
        if near := difflib.get_close_matches(switch, map(str, keys), n=1, cutoff=0.85):
            raise SettingsError(f"{section}.{near[0]} turns no {side.word} on. Did you mean {switch!r}?")
    old = getattr(args, f"add_{side.word}", None)
    if asked not in (None, "None") and not (isinstance(old, bool | str) and str(old).lower() in ("n", "no", "false")):
        raise SettingsError(
            f"{side.section}: {side.word}_type is {asked}, but without {switch} FedML runs no {side.word}: write "
            f"{switch}: true, or {switch}: false if none is wanted."
        )


def _check_round(args: Any) -> None:
    """Reject rounds of more clients than there are, which FedML's simulators answer with a KeyError."""
    asked, total = getattr(args, "client_num_per_round", None), getattr(args, "client_num_in_total", None)
    if isinstance(asked, int) and isinstance(total, int) and asked > total:
        raise SettingsError(
            f"train_args.client_num_per_round: {asked} of client_num_in_total: {total} clients cannot take part in a "
            f"round: {total} at most."
        )


def _number(args: Any, key: str) -> int:
    value = getattr(args, key, None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SettingsError(f"train_args.{key} must be a whole number of clients, at least 1, found {value!r}.")
    return value


def _client_ids(args: Any) -> range:
    """Return the ids of all clients: from 0 in a simulation; in a cross-silo run the ranks, from 1."""
    first = 1 if getattr(args, "training_type", None) == "cross_silo" else 0
    return range(first, first + _number(args, "client_num_in_total"))


def _check_section(side: Side, args: Any, found: Requested) -> None:
    """Reject unknown keys in a side's section.

    FedML's args do not keep the section of a key, so the YAML file is read again.
    """
    path = getattr(args, "yaml_config_file", "")
    section = read_sections(path).get(side.section, {}) if path else {}
    own = {f"enable_{side.word}", f"{side.word}_type", side.params, *side.more_keys}
    flat = {key for model in side.fedml.values() for key in model.model_fields}
    for key in section:
        if found.cls is not None and key in type(found.settings).model_fields and key not in found.taken:
            raise SettingsError(f"{side.section}.{key}: a key of {found.name} stands inside {side.params}.")
        # FedML merges all sections, so its keys of other sections work here as well.
        if key not in own | flat | {f"add_{side.word}"} and key not in keys_of_fedml():
            model = type(found.settings)
            valid = own if found.cls is not None else {*own, *model.model_fields} - {side.params}
            raise SettingsError(unknown(f"key {key!r} in {side.section}", str(key), valid))


def _check_path(side: Side, args: Any, found: Requested) -> None:
    """Reject a type that FedML's chosen path would ignore, so that no run is undefended by accident.

    Warns if one of FedML's own defenses has a known defect.
    """
    training_type, backend = getattr(args, "training_type", None), getattr(args, "backend", None)
    deployed = training_type == "cross_silo" and getattr(args, "scenario", "horizontal") == "horizontal"
    if not deployed and (training_type, backend) not in (("simulation", "sp"), ("simulation", "MPI")):
        if found.cls is not None:
            raise SettingsError(
                f"{side.word}_type {found.name} works with training_type: simulation and backend: sp or MPI, and with "
                f"training_type: cross_silo and scenario: horizontal, found {_path(args)}."
            )
        return
    optimizers.check_honored(args, f"enable_{side.word}")
    _check_clients_training(side, args, found)
    if side is DEFENSE and found.cls is None and found.name in builtin.DEFECTS:
        warnings.warn(f"FedML's {found.name}: {builtin.DEFECTS[found.name]}.", stacklevel=2)


def _path(args: Any) -> str:
    """Return the keys that choose FedML's path, with their values."""
    keys = ["training_type", "scenario"] if getattr(args, "training_type", None) == "cross_silo" else ["training_type"]
    found = [f"{key}: {getattr(args, key, None)}" for key in [*keys, "backend"]]
    return f"{', '.join(found[:-1])} and {found[-1]}"


def _check_clients_training(side: Side, args: Any, found: Requested) -> None:
    """Reject types that change the clients' training data or start where FedML's path does not allow it."""
    if overrides(found.cls, "start_for") and getattr(args, "backend", None) != "sp":
        raise SettingsError(
            f"defense_type {found.name} has clients start from different models, which FedML sends on no path but "
            f"training_type: simulation with backend: sp, found {args.training_type} and {args.backend}."
        )
    if not overrides(found.cls, "poison_data"):
        return
    if getattr(args, "training_type", None) != "simulation":
        raise SettingsError(
            f"attack_type {found.name} poisons what clients train on, which a server cannot: "
            f"it works with training_type: simulation, found {args.training_type}."
        )
    if getattr(args, "attack_prob", 1) != 1:
        raise SettingsError(
            f"attack_prob: {found.name} acts while clients train, before FedML draws whether a round is attacked; "
            "use attack_params active and pause instead."
        )
