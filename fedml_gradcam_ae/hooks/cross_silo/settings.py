"""The settings of a dependable cross-silo server."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fedml_gradcam_ae.settings import Parameters, SettingsError, read_settings, unknown
from fedml_gradcam_ae.yaml_file import read_sections


class ServerSettings(Parameters):
    """Keys of the section `server_args`, for a cross-silo server."""

    client_timeout: float | None = Field(
        default=None, gt=0, description="seconds that a round waits for uploads; null: for ever, as FedML does"
    )
    minimum_clients: int = Field(
        default=1, ge=1, description="how many uploads a round needs to go on when the time is over"
    )
    checkpoint_dir: str | None = Field(
        default=None, description="folder that the server's state is saved in after every round; null: nowhere"
    )
    resume: bool = Field(default=False, description="whether to go on from what `checkpoint_dir` holds")
    restrict_unpickling: bool = Field(
        default=True, description="whether messages may hold data only; false: any pickle is loaded, and may run code"
    )
    release: list[int] = Field(
        default=[], description="clients, by rank, whose removal for good is taken back when the server resumes"
    )
    largest_upload: float = Field(
        default=4.0, gt=1, description="the largest message that is taken, in multiples of the global model's size"
    )


def read_server_settings(args: Any) -> ServerSettings:
    """The server's settings among FedML's flat args.

    Raises:
        SettingsError: for a wrong kind of value or a value out of range.
    """
    values = {key: getattr(args, key) for key in ServerSettings.model_fields if hasattr(args, key)}
    return read_settings(ServerSettings, values, "server_args", "a cross-silo server")


def check_server_section(args: Any) -> None:
    """Raise SettingsError for a mistake in the section `server_args`, unknown keys included."""
    read_server_settings(args)
    path = getattr(args, "yaml_config_file", "")
    for key in read_sections(path).get("server_args", {}) if path else ():
        if key not in ServerSettings.model_fields:
            raise SettingsError(unknown(f"key {key!r} in server_args", str(key), ServerSettings.model_fields))
