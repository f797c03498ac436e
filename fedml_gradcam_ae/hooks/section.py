"""Reading of a YAML section whose keys all belong to the plug-in; FedML merges them into its flat args."""

from __future__ import annotations

from typing import Any

from fedml_gradcam_ae.contract.settings import Model, Parameters, SettingsError, read_settings, unknown
from fedml_gradcam_ae.contract.yaml_file import read_sections


def read_section(model: type[Model], args: Any, section: str, owner: str) -> Model:
    """Return the settings of a section, read from FedML's flat args.

    Args:
        model: the pydantic model that declares the settings.
        args: FedML's args.
        section: the section's name in the YAML file, for messages.
        owner: what the settings are for, for messages.

    Raises:
        SettingsError: for a wrong kind of value or a value out of range.
    """
    values = {key: getattr(args, key) for key in model.model_fields if hasattr(args, key)}
    return read_settings(model, values, section, owner)


def check_section(model: type[Model], args: Any, section: str, owner: str) -> None:
    """Check the values and the keys of a section.

    Args:
        model: the pydantic model that declares the settings.
        args: FedML's args.
        section: the section's name in the YAML file.
        owner: what the settings are for, for messages.

    Raises:
        SettingsError: for an unknown key, a wrong kind of value or a value out of range.
    """
    read_section(model, args, section, owner)
    check_keys(model, args, section)


def check_keys(model: type[Parameters], args: Any, section: str) -> None:
    """Check that a section has no unknown keys.

    FedML's args do not keep the section of a key, so the YAML file is read again.

    Args:
        model: the pydantic model that declares the settings.
        args: FedML's args, with the file's path in `yaml_config_file`; no check without a file.
        section: the section's name in the YAML file.

    Raises:
        SettingsError: for an unknown key.
    """
    path = getattr(args, "yaml_config_file", "")
    for key in read_sections(path).get(section, {}) if path else ():
        if key not in model.model_fields:
            raise SettingsError(unknown(f"key {key!r} in {section}", str(key), model.model_fields))
