"""The registry: which class belongs to which `defense_type` or `attack_type`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from fedml_gradcam_ae.contract.interfaces import Attack, Defense

Class = TypeVar("Class", bound=type)

_defenses: dict[str, type[Defense]] = {}
_attacks: dict[str, type[Attack]] = {}


def register_defense(name: str) -> Callable[[Class], Class]:
    """Make `defense_type: name` in FedML's YAML mean the decorated subclass of `Defense`.

    Args:
        name: the value of `defense_type`.

    Returns:
        A class decorator that returns the class unchanged.

    Raises:
        ValueError: if another class has that name already, or if the class does not fit `Defense`: it has no `judge`,
            a method with other parameters, or a method whose name is nearly one of `Defense`'s.

    Example:
        >>> class FirstOnly(Defense):
        ...     def judge(self, round): ...
        ...     def restor(self, state): ...
        >>> register_defense("first_only")(FirstOnly)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: FirstOnly cannot be registered as 'first_only': ... Did you mean restore(self, state)?
    """
    return _registrar(_defenses, name, Defense, "judge")


def register_attack(name: str) -> Callable[[Class], Class]:
    """Make `attack_type: name` in FedML's YAML mean the decorated subclass of `Attack`.

    Args:
        name: the value of `attack_type`.

    Returns:
        A class decorator that returns the class unchanged.

    Raises:
        ValueError: if another class has that name already, or if the class does not fit `Attack`.

    Example:
        >>> class Idle(Attack): ...
        >>> register_attack("idle")(Idle)
        Traceback (most recent call last):
            ...
        ValueError: Idle cannot be registered as 'idle': it has no method poison(self, round, attackers).
    """
    return _registrar(_attacks, name, Attack, "poison")


def _registrar(table: dict[str, Any], name: str, base: type[Any], required: str) -> Callable[[Class], Class]:
    if not isinstance(name, str):
        raise TypeError(f"A decorator needs the name to register: @register_{base.__name__.lower()}('name').")
    package = f"fedml_gradcam_ae.{base.__name__.lower()}s"

    def register(cls: Class) -> Class:
        if not cls.__module__.startswith(f"{package}."):
            import_all(package)  # so that a name of this package is taken, whichever is imported first
        problem = _misfit(cls, base, required)
        if problem is not None:
            raise ValueError(f"{cls.__qualname__} cannot be registered as {name!r}: {problem}")
        holder = table.get(name)
        # A module that is reloaded (a notebook, a test) may bring the same class again.
        if holder is not None and origin(holder) != origin(cls):
            raise ValueError(f"The name {name!r} is taken by {origin(holder)}: choose another one.")
        table[name] = cls
        return cls

    return register


def _misfit(cls: type[Any], base: type[Any], required: str) -> str | None:
    """Return what of a class does not fit its base class, as the end of an error message, or None."""
    if not issubclass(cls, base):
        return f"it must be a subclass of fedml_gradcam_ae.{base.__name__}."
    if not (isinstance(cls.Settings, type) and issubclass(cls.Settings, base.Settings)):
        return f"its Settings must be a subclass of {base.Settings.__module__}.{base.Settings.__name__}."
    known = {name: method for name, method in vars(base).items() if inspect.isfunction(method)}
    if getattr(cls, required) is known[required]:
        return f"it has no method {_shown(required, known[required])}."
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if name in known and name != "__init__":
            if not _takes_the_same(method, known[name]):
                return f"its method {_shown(name, method)} must be {_shown(name, known[name])}."
        elif not name.startswith("_") and (near := difflib.get_close_matches(name, known, n=1, cutoff=0.8)):
            meant = _shown(near[0], known[near[0]])
            return f"{_shown(name, method)} is no method of {base.__name__}. Did you mean {meant}?"
    return None


def _takes_the_same(method: Callable[..., Any], like: Callable[..., Any]) -> bool:
    """Return whether a method can be called by position with the arguments of another one."""
    try:
        inspect.signature(method).bind(*inspect.signature(like).parameters)
    except TypeError:
        return False
    return True


def _shown(name: str, method: Callable[..., Any]) -> str:
    return f"{name}({', '.join(inspect.signature(method).parameters)})"


def origin(registered: Any) -> str:
    """Return the module and the qualified name of a class or function, which stay the same when a module is reloaded.

    Args:
        registered: a class or a function.

    Example:
        >>> origin(Defense)
        'fedml_gradcam_ae.contract.interfaces.Defense'
    """
    return f"{registered.__module__}.{registered.__qualname__}"


def defenses() -> dict[str, type[Defense]]:
    """Return all registered defenses by name, this package's included.

    Example:
        >>> defenses()["krum"].__name__
        'Krum'
    """
    import_all("fedml_gradcam_ae.defenses")
    return dict(_defenses)


def attacks() -> dict[str, type[Attack]]:
    """Return all registered attacks by name, this package's included.

    Example:
        >>> attacks()["sign_flip"].__name__
        'SignFlip'
    """
    import_all("fedml_gradcam_ae.attacks")
    return dict(_attacks)


def import_all(package_name: str) -> None:
    """Import every module of a package, so that its decorators register their classes.

    A new file needs no other mention.

    Args:
        package_name: the dotted name of the package.

    Example:
        >>> import sys
        >>> import_all("fedml_gradcam_ae.attacks")
        >>> "fedml_gradcam_ae.attacks.sign_flip" in sys.modules
        True
    """
    package = importlib.import_module(package_name)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package_name}.{module.name}")
