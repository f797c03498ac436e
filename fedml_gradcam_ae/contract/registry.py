"""Which class answers to which `defense_type` and `attack_type`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)

_defenses: dict[str, type[Any]] = {}
_attacks: dict[str, type[Any]] = {}


def register_defense(name: str) -> Callable[[Class], Class]:
    """Class decorator: `defense_type: name` in FedML's YAML now means this class.

    The class has `__init__(self, settings)` and `judge(self, round) -> Verdict`; a pydantic model
    named `Settings` inside it declares the keys that `defense_params` may hold (none without one).

    Raises:
        ValueError: if another class has that name already.
    """
    return _registrar(_defenses, name, "judge")


def register_attack(name: str) -> Callable[[Class], Class]:
    """Class decorator: `attack_type: name` in FedML's YAML now means this class.

    The class has `__init__(self, settings)` and `poison(self, round, attackers)`, which returns one
    upload for each position in `attackers`; its `Settings` extend `settings.AttackSettings`.

    Raises:
        ValueError: if another class has that name already.
    """
    return _registrar(_attacks, name, "poison")


def _registrar(table: dict[str, type[Any]], name: str, method: str) -> Callable[[Class], Class]:
    def register(cls: Class) -> Class:
        if not callable(getattr(cls, method, None)):
            raise ValueError(f"{cls.__qualname__} cannot be registered as {name!r}: it has no method {method}().")
        holder = table.get(name)
        # A module that is reloaded (a notebook, a test) may bring the same class again.
        if holder is not None and origin(holder) != origin(cls):
            raise ValueError(f"The name {name!r} is taken by {origin(holder)}: choose another one.")
        table[name] = cls
        return cls

    return register


def origin(registered: Any) -> str:
    """Where a class or a function was written: the same for what a reloaded module brings again."""
    return f"{registered.__module__}.{registered.__qualname__}"


def defenses() -> dict[str, type[Any]]:
    """Every registered defense by name, the package's own included."""
    import_all("fedml_gradcam_ae.defenses")
    return dict(_defenses)


def attacks() -> dict[str, type[Any]]:
    """Every registered attack by name, the package's own included."""
    import_all("fedml_gradcam_ae.attacks")
    return dict(_attacks)


def import_all(package_name: str) -> None:
    """Importing a file of the package runs its decorator; a new file needs no other mention."""
    package = importlib.import_module(package_name)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package_name}.{module.name}")
