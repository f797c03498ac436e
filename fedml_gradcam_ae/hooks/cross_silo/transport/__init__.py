"""gRPC transport of the server and of clients under the plug-in, with limits on senders, sizes and times."""

from __future__ import annotations

import os

from fedml_gradcam_ae.hooks.patching import Patches


def patch(patches: Patches) -> None:
    """Replace GRPCCommManager in the module where FedML looks it up; called only if gRPC is installed."""
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
