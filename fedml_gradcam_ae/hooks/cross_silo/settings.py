"""Settings of the cross-silo server."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from fedml_gradcam_ae.contract.settings import SettingsError, read_settings
from fedml_gradcam_ae.hooks.cross_silo.transport.identity import check_transport_settings
from fedml_gradcam_ae.hooks.cross_silo.transport.services import check_services
from fedml_gradcam_ae.hooks.cross_silo.transport.settings import TransportSettings, read_transport_settings
from fedml_gradcam_ae.hooks.section import check_keys

BACKENDS = ("GRPC", "MQTT_S3", "MPI", "TRPC")  # The transports of the plug-in's server.


class ServerSettings(TransportSettings):
    """Keys of the YAML section `server_args` for a cross-silo server."""

    client_timeout: float | None = Field(
        default=None, gt=0, description="seconds that a round waits for uploads; null: without limit, as FedML does"
    )
    minimum_clients: int = Field(
        default=1, ge=1, description="minimum number of uploads with which a round ends after `client_timeout`"
    )
    checkpoint_dir: str | None = Field(
        default=None, description="folder that the server's state is saved in after every round; null: nowhere"
    )
    resume: bool = Field(default=False, description="whether to continue from the state in `checkpoint_dir`")
    release: list[int] = Field(
        default=[], description="clients, by rank, whose permanent removal is undone when the server resumes"
    )
    largest_upload: float = Field(
        default=4.0, gt=1, description="maximum size of a message, in multiples of the global model's size"
    )
    end_timeout: float = Field(
        default=60.0,
        gt=0,
        description="seconds that the server waits, after the last round, for clients to end; at most `client_timeout`",
    )


def read_server_settings(args: Any) -> ServerSettings:
    """Return the server's settings.

    They are read from FedML's flat args. Settings that clients have as well are read from the section `server_args`.

    Raises:
        SettingsError: for a wrong kind of value or a value out of range.
    """
    own = ServerSettings.model_fields.keys() - TransportSettings.model_fields.keys()
    values = {key: getattr(args, key) for key in own if hasattr(args, key)}
    values |= dict(read_transport_settings(args, rank=0))
    return read_settings(ServerSettings, values, "server_args", "a cross-silo server")


def check_sections(args: Any) -> None:
    """Check the sections `server_args` and `client_args`, the scenario and the transport.

    Args:
        args: FedML's args.

    Raises:
        SettingsError: for an unknown key, a wrong kind of value, a value out of range, or settings that contradict
            each other.
    """
    _check_path(args)
    check_keys(ServerSettings, args, "server_args")
    check_keys(TransportSettings, args, "client_args")
    check_transport_settings(args)
    if getattr(args, "backend", None) == "MQTT_S3":
        check_services(args)
    _check_together(read_server_settings(args), args)


def _check_path(args: Any) -> None:
    """Reject what FedML 0.9.6 cannot run, and transports over which the plug-in's server does not run."""
    if getattr(args, "scenario", None) == "hierarchical":
        raise SettingsError(
            "scenario: hierarchical: FedML 0.9.6 ends each process in fedml.init, with exit status 0 and before "
            "anything is trained; use scenario: horizontal, with one process for each silo."
        )
    backend = getattr(args, "backend", None)
    if backend is not None and backend not in BACKENDS:
        raise SettingsError(
            f"backend: {backend}: the plug-in's cross-silo server runs over {', '.join(BACKENDS)}. FedML's own server "
            "over other transports runs code from uploads; use one of these."
        )
    if backend == "TRPC" and not getattr(args, "trpc_master_config_path", None):
        raise SettingsError(
            "comm_args.trpc_master_config_path is missing: backend: TRPC needs a CSV file of a header line and the "
            "master's address and port."
        )


def _check_together(settings: ServerSettings, args: Any) -> None:
    """Reject settings that contradict each other."""
    per_round, total = getattr(args, "client_num_per_round", None), getattr(args, "client_num_in_total", None)
    if isinstance(per_round, int) and settings.minimum_clients > per_round:
        raise SettingsError(
            f"server_args.minimum_clients: found {settings.minimum_clients}, but a round asks client_num_per_round: "
            f"{per_round} clients; give at most {per_round}."
        )
    if settings.resume and settings.checkpoint_dir is None:
        raise SettingsError(
            "server_args.resume: there is nothing to resume from without checkpoint_dir; name the folder, or leave "
            "resume out."
        )
    if settings.release and not settings.resume:
        raise SettingsError(
            f"server_args.release: found {settings.release}, but a removal is taken back only when the server goes on "
            "from a checkpoint; set resume: true and checkpoint_dir, or leave release out."
        )
    known = _client_ids(args, total)
    if known and (strangers := [client for client in settings.release if client not in known]):
        raise SettingsError(
            f"server_args.release: found {strangers}, which are no clients; they have the numbers "
            f"{min(known)} to {max(known)}."
        )


def _client_ids(args: Any, total: object) -> list[int]:
    """Return the clients' ids, which are their ranks unless FedML's platform gave others; empty if unknown."""
    try:
        given = json.loads(str(getattr(args, "client_id_list", None)))
    except ValueError:
        given = None
    if isinstance(given, list) and given and all(type(client) is int for client in given):
        # A client's own list holds only its own id.
        return given if getattr(args, "rank", 0) in (0, "0") else []
    return list(range(1, total + 1)) if isinstance(total, int) else []
