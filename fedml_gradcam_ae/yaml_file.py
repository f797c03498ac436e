"""Reading a FedML configuration file with an answer to every way in which it can be broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fedml_gradcam_ae.settings import SettingsError


def read_sections(path: str | Path) -> dict[str, dict[str, Any]]:
    """The sections of a FedML configuration file.

    Raises:
        SettingsError: if the file does not exist, is no YAML, or is no mapping of sections to mappings.
    """
    try:
        sections = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The configuration {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"The configuration {path} is not YAML: {error}") from None
    if not isinstance(sections, dict):
        raise SettingsError(f"The configuration {path} must hold sections such as train_args:, found {sections!r}.")
    for name, section in sections.items():
        if section is not None and not isinstance(section, dict):
            raise SettingsError(f"{path}: the section {name} must hold keys and values, found {section!r}.")
    return {name: section or {} for name, section in sections.items()}
