"""A section of FedML's YAML whose keys are all ours; FedML flattens it among its args."""

from __future__ import annotations

from typing import Any

from fedml_gradcam_ae.contract.settings import Model, Parameters, SettingsError, read_settings, unknown
from fedml_gradcam_ae.contract.yaml_file import read_sections


def read_section(model: type[Model], args: Any, section: str, owner: str) -> Model:
    """The settings among FedML's flat args.

    Args:
        model: their declaration.
        args: FedML's.
        section: its name in the YAML, for messages.
        owner: what they are for, likewise.

    Raises:
        SettingsError: for a wrong kind of value or a value out of range.
    """
    values = {key: getattr(args, key) for key in model.model_fields if hasattr(args, key)}
    return read_settings(model, values, section, owner)


def check_section(model: type[Model], args: Any, section: str, owner: str) -> None:
    """Raise SettingsError for a mistake in the section, unknown keys included."""
    read_section(model, args, section, owner)
    check_keys(model, args, section)


def check_keys(model: type[Parameters], args: Any, section: str) -> None:
    """Raise SettingsError for an unknown key in the section.

    FedML forgets which section a key stood in, so the file is read once more.
    """
    path = getattr(args, "yaml_config_file", "")
    for key in read_sections(path).get(section, {}) if path else ():
        if key not in model.model_fields:
            raise SettingsError(unknown(f"key {key!r} in {section}", str(key), model.model_fields))
