"""Transports of the server and of clients under the plug-in, with limits on senders, sizes and times."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import fedml

from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.simulation import ranks


def patch(patches: Patches) -> None:
    """Replace the start of a cross-silo process and, if gRPC is installed, GRPCCommManager."""
    stock_start = fedml._init_cross_silo_horizontal

    def start(args: Any) -> Any:
        if getattr(args, "backend", None) != "MPI":
            return stock_start(args)
        ranks.check_mpi()
        from mpi4py import MPI

        ranks.check_world(int(args.client_num_per_round), MPI.COMM_WORLD.Get_size())
        stock_start(args)
        ranks.stop_all_on_uncaught_errors(patches)
        return args

    patches.replace(
        fedml, "_init_cross_silo_horizontal", start, mends="an error on one MPI rank leaves the other ranks waiting"
    )
    if importlib.util.find_spec("grpc") is not None:  # pip install fedml[grpc]
        _patch_grpc(patches)


def _patch_grpc(patches: Patches) -> None:
    # gRPC prints a line about every failed TLS handshake, and any process that reaches the port can cause thousands.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from fedml.core.distributed.communication.grpc import grpc_comm_manager

    from fedml_gradcam_ae.hooks.cross_silo.transport.manager import GRPCTransport

    patches.replace(
        grpc_comm_manager,
        "GRPCCommManager",
        GRPCTransport,
        mends="runs code from messages, trusts any sender, takes up to 1000 MB, waits forever, is busy while idle",
    )


def init_transport(manager: Any, stock: Callable[[], None]) -> None:
    """Give a FedML manager the plug-in's transport for its backend, or FedML's own if there is none.

    gRPC counts as FedML's here, since its class is replaced where FedML looks it up.

    Args:
        manager: a FedMLCommManager of the server or of a client.
        stock: FedML's method `_init_manager`.

    Raises:
        SettingsError: if a setting is missing or wrong.
    """
    if manager.backend == "MQTT_S3":
        from fedml_gradcam_ae.hooks.cross_silo.transport.mqtt_s3 import MQTTS3Transport
        from fedml_gradcam_ae.hooks.cross_silo.transport.services import services

        manager.com_manager = MQTTS3Transport(*services(manager), manager.args)
    elif manager.backend == "MPI":
        from fedml_gradcam_ae.hooks.cross_silo.transport.between_ranks import MPITransport

        manager.com_manager = MPITransport(manager.comm, manager.rank, manager.args)
    elif manager.backend == "TRPC":
        from fedml_gradcam_ae.hooks.cross_silo.transport.torch_rpc import TRPCTransport

        path = manager.args.trpc_master_config_path
        manager.com_manager = TRPCTransport(path, manager.rank, manager.size, manager.args)
    else:
        stock()
        return
    manager.com_manager.add_observer(manager)


def close(transport: Any, failed: bool) -> None:
    """Close the connection of a transport that has one: after its last message was sent, not when it stops to receive.

    Args:
        transport: any transport.
        failed: whether this process ends with an error, of which a transport may tell the others.
    """
    if failed and hasattr(transport, "fail"):
        transport.fail()
    if hasattr(transport, "close"):
        transport.close()
