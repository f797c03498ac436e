"""Who a process is: its files for TLS, found and checked; loads what TLS needs only where it is turned on."""

from __future__ import annotations

from typing import Any

from fedml_gradcam_ae.hooks.cross_silo.transport.settings import TLSFiles, folder_of, read_transport_settings


def check_transport_settings(args: Any) -> None:
    """Check the sections of both sides, and this process's files for TLS.

    Raises:
        SettingsError: for a value that is wrong, or files that cannot be used.
    """
    for rank in (0, 1):
        read_transport_settings(args, rank)
    rank = int(getattr(args, "rank", 0))
    files = read_transport_settings(args, rank).tls
    if files is not None and getattr(args, "backend", None) == "GRPC":
        load_identity(files, rank, args)


def load_identity(files: TLSFiles, rank: int, args: Any) -> Any:
    """The files of one process, read and checked: an `Identity` of the module `tls`, which needs gRPC.

    Raises:
        SettingsError: if they cannot be used.
    """
    from fedml_gradcam_ae.hooks.cross_silo.transport import tls

    return tls.load(files, rank, folder_of(args), "client_args" if rank else "server_args")
