"""Lookup and check of a process's TLS files; the modules for TLS are imported only if TLS is on."""

from __future__ import annotations

from typing import Any

from fedml_gradcam_ae.hooks.cross_silo.transport.settings import TLSFiles, folder_of, read_transport_settings


def check_transport_settings(args: Any) -> None:
    """Check the transport settings of the server and the clients, and this process's TLS files.

    Args:
        args: FedML's args.

    Raises:
        SettingsError: if a value is wrong or a file cannot be used.
    """
    for rank in (0, 1):
        read_transport_settings(args, rank)
    rank = int(getattr(args, "rank", 0))
    files = read_transport_settings(args, rank).tls
    if files is not None and getattr(args, "backend", None) == "GRPC":
        load_identity(files, rank, args)


def load_identity(files: TLSFiles, rank: int, args: Any) -> Any:
    """Read and check the TLS files of one process.

    Args:
        files: the paths of the files.
        rank: the rank of the process.
        args: FedML's args.

    Returns:
        An `Identity` of the module `tls`, which needs gRPC.

    Raises:
        SettingsError: if a file cannot be used.
    """
    from fedml_gradcam_ae.hooks.cross_silo.transport import tls

    return tls.load(files, rank, folder_of(args), "client_args" if rank else "server_args")
