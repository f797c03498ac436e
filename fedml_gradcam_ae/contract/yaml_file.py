"""A reader of YAML files that answers every kind of broken file with a message for the user."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

import yaml

from fedml_gradcam_ae.contract import strict_yaml
from fedml_gradcam_ae.contract.settings import SettingsError

# This package's sections, which decide what is defended. FedML's own sections may share keys: its examples do.
OURS = {"defense_args", "attack_args", "upload_args", "server_args", "client_args"}
# One file may configure both the server and its clients, with different values for the same key.
ENDS = {"server_args", "client_args"}


def read_mapping(path: str | Path, example: str) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Args:
        path: the file.
        example: a key that such a file has, for the message.

    Raises:
        SettingsError: if the file does not exist, is no YAML, has a key twice, or holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "fedml_config.yaml")
        ...     _ = path.write_text("train_args: {epochs: 2}")
        ...     read_mapping(path, example="train_args")
        {'train_args': {'epochs': 2}}
    """
    try:
        content = strict_yaml.load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The configuration {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"The configuration {path} is not YAML: it must be UTF-8 text, and {error}.") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # a date such as 2024-99-99 is a ValueError
        raise SettingsError(f"The configuration {path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"The configuration {path} must hold keys such as {example}:, found {_short(content)}.")
    return content


def read_sections(path: str | Path) -> dict[str, dict[str, Any]]:
    r"""Return the sections of a FedML configuration file.

    Args:
        path: the file.

    Returns:
        Keys and values by section; an empty section has none.

    Raises:
        SettingsError: if the file cannot be read, a section is no mapping, or a key of one of this package's sections
            has another value in another section.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "fedml_config.yaml")
        ...     _ = path.write_text("train_args: {epochs: 2}\ndefense_args:")
        ...     read_sections(path)
        {'train_args': {'epochs': 2}, 'defense_args': {}}
    """
    sections = read_mapping(path, example="train_args")
    for name, section in sections.items():
        if section is not None and not isinstance(section, dict):
            raise SettingsError(f"{path}: the section {name} must hold keys and values, found {_short(section)}.")
    found = {name: section or {} for name, section in sections.items()}
    _check_across(path, found)
    return found


def _check_across(path: str | Path, sections: dict[str, dict[str, Any]]) -> None:
    """Raise if sections contradict each other: FedML merges all sections, and the last one that has a key wins."""
    first: dict[Any, str] = {}
    for name, section in sections.items():
        for key, value in section.items():
            other = first.setdefault(key, name)
            ours = {other, name} & OURS and {other, name} != ENDS
            if other != name and ours and sections[other][key] != value:
                raise SettingsError(
                    f"{path}: the key {key!r} stands in the sections {other} and {name}, as "
                    f"{_short(sections[other][key])} and {_short(value)}, and FedML would take the last: remove one."
                )


def _short(value: object) -> str:
    return reprlib.repr(value) if isinstance(value, str | list | dict | bytes) else repr(value)
