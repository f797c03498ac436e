"""What a run says at its start: what defends and what attacks, in place of what, and against what it is no use."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from fedml_gradcam_ae.contract.interfaces import overrides
from fedml_gradcam_ae.contract.settings import SettingsError, read_settings
from fedml_gradcam_ae.contract.yaml_file import read_sections
from fedml_gradcam_ae.hooks.configuration import ATTACK, DEFENSE, Requested, requested, with_train_args

log = logging.getLogger("fedml_gradcam_ae")
_MOST = 100  # clients a round up to which the fewest are searched with which a rule protects


def announce(args: Any) -> None:
    """Log what runs, on the server alone.

    Args:
        args: FedML's args, after `fedml.init`.
    """
    if rank := int(getattr(args, "rank", 0) or 0):
        if getattr(args, "training_type", None) == "cross_silo":
            log.info("client %d: attacks and defenses act on the server", rank)
        return
    for line in what_runs(args):
        log.info(line)
    for line in warnings_of(args):
        log.warning(line)


def what_runs(args: Any) -> list[str]:
    """Return a line for the defense and one for the attack, or one line that there are none.

    Args:
        args: FedML's args, checked.

    Raises:
        SettingsError: for a wrong setting.
    """
    lines = []
    for side in (DEFENSE, ATTACK):
        found = requested(side, args)
        if found is not None:
            owner = "the plug-in's" if found.cls is not None else "FedML's"
            lines.append(found.shared or f"{side.word}: {owner} {found.name}")
    return lines or ["no defense and no attack: FedML's own average of the uploads"]


def warnings_of(args: Any) -> Iterator[str]:
    """Yield a line for each key without effect, and one for a defense that so few clients give nothing to go by.

    Args:
        args: FedML's args, checked.

    Raises:
        SettingsError: for a wrong setting.
    """
    path = getattr(args, "yaml_config_file", "")
    sections = read_sections(path) if path else {}
    requests = {side.word: requested(side, args) for side in (DEFENSE, ATTACK)}
    for side in (DEFENSE, ATTACK):
        given, found = sections.get(side.section, {}), requests[side.word]
        if f"add_{side.word}" in given:
            yield (
                f"{side.section}.add_{side.word} has no effect: FedML 0.9.6 reads enable_{side.word}, which is "
                f"{str(found is not None).lower()} here."
            )
        if found is None or found.cls is None or found.shared is not None:
            continue
        asked = str(getattr(args, f"{side.word}_type", "")).strip()
        if asked in side.fedml:
            for key in given.keys() & side.fedml[asked].model_fields:
                yield f"{side.section}.{key} has no effect: {side.params} stands beside it."
        else:
            for key in sorted(given.keys() & _flat_keys() - _read_by_fedml(requests)):
                yield (
                    f"{side.section}.{key} has no effect: it is a key of FedML's own types. Those of {found.name} "
                    f"stand in {side.params} (docs/settings.md)."
                )
    defense = requests[DEFENSE.word]
    if defense is not None and defense.cls is not None:
        yield from _few_clients(defense, args)


def _flat_keys() -> set[str]:
    """Return the keys of all of FedML's own types."""
    return {key for side in (DEFENSE, ATTACK) for model in side.fedml.values() for key in model.model_fields}


def _read_by_fedml(requests: Mapping[str, Requested | None]) -> set[str]:
    """Return the keys of FedML's types that are read, by the other side's type or in place of parameters."""
    keys: set[str] = set()
    for side in (DEFENSE, ATTACK):
        found = requests[side.word]
        if found is not None:
            keys |= set(found.taken) if found.cls is not None else set(side.fedml[found.name].model_fields)
    return keys


def _few_clients(found: Requested, args: Any) -> Iterator[str]:
    """Yield a line if the defense does not withstand one malicious client among those of a round."""
    clients = int(args.client_num_per_round)
    rule = found.build()
    if rule.protects(clients):
        return
    enough = next((more for more in range(clients + 1, _MOST + 1) if rule.protects(more)), None)
    needed = "nor does it among more" if enough is None else f"with these settings it takes {enough}"
    names = ", ".join(_that_protect(clients, args))
    others = f"These do, with their defaults: {names}." if names else "No rule does."
    yield (
        f"{found.name} withstands no malicious client with arbitrary uploads among {clients} a round; {needed}. "
        f"{others} See docs/defenses.md."
    )


def _that_protect(clients: int, args: Any) -> list[str]:
    """Return the plug-in's rules that, with their defaults, withstand one malicious client among so many."""
    names = []
    for name, cls in sorted(DEFENSE.ours().items()):
        runs = not overrides(cls, "start_for") or getattr(args, "backend", None) == "sp"
        if runs and cls.__module__.startswith("fedml_gradcam_ae."):
            try:
                settings = read_settings(cls.Settings, with_train_args(cls.Settings, None, args), DEFENSE.params, name)
                rule = cls(settings)
            except SettingsError:  # it needs settings that are not given
                continue
            if rule.protects(clients):
                names.append(name)
    return names
