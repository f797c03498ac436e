"""FedML's communication manager over torch's RPC, for the server and clients under the plug-in."""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Sequence
from typing import Any

from fedml.core.distributed.communication.message import Message
from fedml.core.distributed.communication.trpc.trpc_comm_manager import TRPCCommManager
from fedml.core.distributed.communication.trpc.trpc_server import TRPCCOMMServicer
from fedml.core.distributed.communication.trpc.utils import WORKER_NAME
from torch.distributed import rpc
from typing_extensions import override

from fedml_gradcam_ae.hooks.cross_silo.transport.envelope import FINISH
from fedml_gradcam_ae.hooks.cross_silo.transport.intake import Intake, size_of_model
from fedml_gradcam_ae.hooks.cross_silo.transport.serving import Serving
from fedml_gradcam_ae.hooks.cross_silo.transport.settings import read_transport_settings
from fedml_gradcam_ae.hooks.cross_silo.transport.undelivered import UndeliveredError

log = logging.getLogger("fedml_gradcam_ae")

LAST_SECONDS = 10.0  # Longest wait for the other processes at the end.


class TRPCTransport(Serving, TRPCCommManager):  # type: ignore[misc]  # fedml has no types
    """TRPCCommManager that serves until the run ends, checks messages, and ends the clients after an error.

    torch's RPC lets each process call any function in each other one, and unpickles what they send. So the limits and
    checks here are against mistakes alone.

    Args:
        path: the path of FedML's table with the master's address and port.
        rank: the rank of this process; 0 is the server.
        clients: the number of clients.
        args: FedML's args.

    Attributes:
        complaints: the reports of dropped messages.
    """

    def __init__(self, path: str, rank: int, clients: int, args: Any) -> None:
        self.settings = read_transport_settings(args, rank)
        self._clients, self._failed = clients, False
        observers: list[Any] = []
        self._intake = Intake(rank, self.settings, observers, lambda: [rank], args)
        self.complaints = self._intake.complaints
        if rank == 0:
            log.warning(
                "TRPC: each process of the run, and any process that reaches the master's port, can run code in all "
                "others (GRPC, MQTT_S3 and MPI have no such calls)"
            )
        # A message may come as soon as the processes know each other, which FedML's constructor waits for.
        TRPCCOMMServicer._instance = _Doorway(self._intake, clients)
        super().__init__(path, process_id=rank, world_size=clients + 1, args=args)
        self._observers = observers

    def expect(self, model_bytes: int, clients: Sequence[int]) -> None:
        """Set the limits for the model.

        Args:
            model_bytes: the size of the global model, in bytes.
            clients: the ids of all processes that may send: all clients for the server, the server for a client.
        """
        self._intake.expect(model_bytes, clients)

    @override
    def begin(self) -> None:
        """Set the limits of a client; the server has done so, since it knows the model."""
        if self.rank != 0:
            self.expect(size_of_model(self._observers), [0])

    def fail(self) -> None:
        """Prepare to leave the other processes after an error; the server tells the clients to end."""
        self._failed = True
        if self.rank == 0:
            for client in range(1, self._clients + 1):
                _call(client, Message(FINISH, 0, client), LAST_SECONDS)

    def close(self) -> None:
        """Leave the other processes: all together or, after an error, alone.

        Raises:
            UndeliveredError: on a client, if another process has left alone.
        """
        try:
            rpc.shutdown(graceful=not self._failed, timeout=LAST_SECONDS)
        except RuntimeError:
            with contextlib.suppress(RuntimeError):  # it may be down already
                rpc.shutdown(graceful=False)
            if self.rank != 0:
                raise UndeliveredError("TRPC: another process has ended with an error") from None
            log.warning("TRPC: not all clients have ended in %g s", LAST_SECONDS)

    def send_message(self, msg: Message) -> None:
        """Send a message and wait until its receiver has it.

        Args:
            msg: the message.

        Raises:
            UndeliveredError: if the receiver does not answer within `send_timeout` seconds.
        """
        error = _call(int(msg.get_receiver_id()), msg, self.settings.send_timeout, sender=self.rank)
        if error is not None:
            raise UndeliveredError(f"torch's RPC: {error}")


class _Doorway:
    """The object of which FedML's remote call is a method."""

    def __init__(self, intake: Intake, clients: int) -> None:
        self._intake, self._clients = intake, clients

    def receiveMessage(self, sender: int, message: Any) -> str:  # noqa: N802  (FedML's name)
        if type(sender) is int and 0 <= sender <= self._clients:
            self._intake.put(sender, pickle.dumps(message))
        return "message received"


def _call(receiver: int, message: Message, timeout: float, sender: int = 0) -> str | None:
    """Send a message; return the reason if it did not arrive."""
    try:
        rpc.rpc_sync(
            WORKER_NAME.format(receiver), TRPCCOMMServicer.sendMessage, args=(sender, message), timeout=timeout
        )
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None
