"""FedML's communication manager between the ranks of an MPI run, for the server and clients under the plug-in."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from fedml.core.distributed.communication.base_com_manager import BaseCommunicationManager
from fedml.core.distributed.communication.message import Message
from typing_extensions import override

from fedml_gradcam_ae.hooks.cross_silo.refused import Refused
from fedml_gradcam_ae.hooks.cross_silo.transport.intake import Intake, size_of_model
from fedml_gradcam_ae.hooks.cross_silo.transport.serving import Serving
from fedml_gradcam_ae.hooks.cross_silo.transport.settings import read_transport_settings
from fedml_gradcam_ae.hooks.simulation import ranks

POLL_SECONDS = 0.002  # Time between two looks for a message.


class MPITransport(Serving, BaseCommunicationManager):  # type: ignore[misc]  # fedml has no types
    """Transport with the messages of FedML's `MpiCommunicationManager`, which decodes instead of unpickling.

    MPI itself says which rank sent a message. Client n runs on rank n.

    Args:
        comm: the communicator of all ranks.
        rank: the rank of this process; 0 is the server.
        args: FedML's args.

    Attributes:
        complaints: the reports of dropped messages.
    """

    def __init__(self, comm: Any, rank: int, args: Any) -> None:
        self._comm, self._rank = comm, rank
        self._observers: list[Any] = []
        settings = read_transport_settings(args, rank)
        self._intake = Intake(rank, settings, self._observers, lambda: [rank], args)
        self.complaints = self._intake.complaints
        self.is_running, self._closed = True, False
        self._members: frozenset[int] = frozenset()
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def expect(self, model_bytes: int, clients: Sequence[int]) -> None:
        """Set the limits for the model, and start to receive.

        Args:
            model_bytes: the size of the global model, in bytes.
            clients: the ids of all processes that may send: all clients for the server, the server for a client.
        """
        self._intake.expect(model_bytes, clients)
        self._members = frozenset(map(int, clients))
        self._thread.start()

    @override
    def begin(self) -> None:
        """Have a client start to receive; the server has done so, since it knows the model."""
        if self._rank != 0:
            self.expect(size_of_model(self._observers), [0])

    def close(self) -> None:
        """Stop receiving."""
        self._closed = True
        if self._thread.is_alive():
            self._thread.join()

    def leave(self, clients: str) -> None:
        """End all ranks, since MPI has no way to end without the ranks of some clients.

        Args:
            clients: the clients that have not reported their end.
        """
        ranks.abort(f"ending all ranks: clients {clients} have not ended")

    def send_message(self, msg: Message) -> None:
        """Send a message, and wait until MPI has taken it.

        Args:
            msg: the message.
        """
        self._comm.send(msg, dest=int(msg.get_receiver_id()))

    def _receive(self) -> None:
        try:
            while not self._closed:
                if not self._receive_one():
                    time.sleep(POLL_SECONDS)
        except Exception as error:
            ranks.stop_all(error)
            raise

    def _receive_one(self) -> bool:
        """Queue the next message; return whether there was one."""
        from mpi4py import MPI

        status = MPI.Status()
        found = self._comm.Improbe(status=status)
        if found is None:
            return False
        size, sender, most = status.Get_count(MPI.BYTE), status.Get_source(), self._intake.limits.tellable
        content = bytearray(min(size, most))
        try:
            found.Recv([content, MPI.BYTE])
        except MPI.Exception as error:
            if error.Get_error_class() != MPI.ERR_TRUNCATE:
                raise
        if sender not in self._members:  # FedML's clients take a model from whoever sends one
            self.complaints.report("stranger", f"a message from rank {sender} was dropped: it has nothing to say here")
            return True
        self._intake.put(sender, bytes(content) if size <= most else Refused(f"it has {size} bytes: too many"))
        return True
