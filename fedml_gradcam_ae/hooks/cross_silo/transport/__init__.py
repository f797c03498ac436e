"""The gRPC transport of the server and of clients under the plug-in: who may say what, how much, and for how long."""

from __future__ import annotations

import os

from fedml_gradcam_ae.hooks.patching import Patches


def patch(patches: Patches) -> None:
    """Put our communication manager where FedML looks it up; only called where gRPC is installed."""
    # gRPC writes a line about every failed TLS handshake, and whoever reaches the port can make thousands of them.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from fedml.core.distributed.communication.grpc import grpc_comm_manager

    from fedml_gradcam_ae.hooks.cross_silo.transport.manager import GRPCTransport

    patches.replace(
        grpc_comm_manager,
        "GRPCCommManager",
        GRPCTransport,
        mends="runs what a message says, believes any sender, takes 1000 MB each, waits for ever, and spins while idle",
    )
