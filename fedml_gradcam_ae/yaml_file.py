"""Reading a YAML file with an answer to every way in which it can be broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fedml_gradcam_ae.settings import SettingsError


def read_mapping(path: str | Path, example: str) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        path: the file.
        example: a key that such a file has, for the message.

    Raises:
        SettingsError: if the file does not exist, is no YAML, or holds something else.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The configuration {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"The configuration {path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"The configuration {path} must hold keys such as {example}:, found {content!r}.")
    return content


def read_sections(path: str | Path) -> dict[str, dict[str, Any]]:
    """The sections of a FedML configuration file.

    Raises:
        SettingsError: if it cannot be read as one, or a section is no mapping.
    """
    sections = read_mapping(path, example="train_args")
    for name, section in sections.items():
        if section is not None and not isinstance(section, dict):
            raise SettingsError(f"{path}: the section {name} must hold keys and values, found {section!r}.")
    return {name: section or {} for name, section in sections.items()}
