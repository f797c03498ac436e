"""The settings of a dependable cross-silo server."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fedml_gradcam_ae.hooks.section import check_section, read_section
from fedml_gradcam_ae.settings import Parameters

SECTION, OWNER = "server_args", "a cross-silo server"


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
    return read_section(ServerSettings, args, SECTION, OWNER)


def check_server_section(args: Any) -> None:
    """Raise SettingsError for a mistake in the section `server_args`, unknown keys included."""
    check_section(ServerSettings, args, SECTION, OWNER)
