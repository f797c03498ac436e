"""Settings of the transports, the same for the server and for clients under the plug-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from fedml_gradcam_ae.contract.settings import Parameters, read_settings
from fedml_gradcam_ae.contract.yaml_file import read_sections


class TLSFiles(Parameters):
    """Paths of the three TLS files of a process; `{rank}` in a path stands for the rank of the process."""

    certificate: str = Field(description="its certificate (PEM)")
    key: str = Field(description="the certificate's private key (PEM, without a password)")
    authority: str = Field(description="certificate of the authority that issued all certificates (PEM)")


class TransportSettings(Parameters):
    """Keys of the YAML sections `server_args` and `client_args` that concern transports."""

    tls: TLSFiles | None = Field(
        default=None,
        description="gRPC: `certificate`, `key` and `authority`: paths relative to the YAML file's folder, in which "
        "`{rank}` stands for the rank; null: no encryption, and any process that reaches the port can act as any "
        "client",
    )
    send_timeout: float = Field(
        default=120.0,
        gt=0,
        description="timeout of sending one message, after which the receiver counts as unreachable (seconds)",
    )
    receive_timeout: float = Field(
        default=600.0, gt=0, description="timeout of receiving one message over gRPC (seconds)"
    )
    messages_per_second: float = Field(
        default=50.0,
        gt=0,
        description="maximum average rate of messages from one sender (messages per second)",
    )
    decode_objects: int = Field(
        default=200_000, ge=1, description="maximum number of values in one message (a tensor counts as about 25)"
    )
    decode_depth: int = Field(default=64, ge=1, description="maximum depth of nested containers in one message")
    decode_seconds: float = Field(default=30.0, gt=0, description="timeout of decoding one message (seconds)")


def read_transport_settings(args: Any, rank: int) -> TransportSettings:
    """Return the transport settings of one process.

    They are read from the YAML file, if there is one. FedML's args are one flat namespace, in which the settings of
    the server and those of the clients would overwrite each other.

    Args:
        args: FedML's args, with the file's path in `yaml_config_file`.
        rank: the rank of the process; 0 reads `server_args`, any other `client_args`.

    Raises:
        SettingsError: for a wrong kind of value or a value out of range.
    """
    section = "server_args" if rank == 0 else "client_args"
    path = getattr(args, "yaml_config_file", "")
    values = read_sections(path).get(section, {}) if path else vars(args) if args is not None else {}
    known = {key: value for key, value in values.items() if key in TransportSettings.model_fields}
    if known.get("tls") is not None:
        known["tls"] = read_settings(TLSFiles, known["tls"], f"{section}.tls", "mutual TLS")
    return read_settings(TransportSettings, known, section, "a cross-silo process")


def folder_of(args: Any) -> Path:
    """Return the folder that relative paths start from: that of the YAML file, or the working directory."""
    path = getattr(args, "yaml_config_file", "")
    return Path(path).resolve().parent if path else Path.cwd()
