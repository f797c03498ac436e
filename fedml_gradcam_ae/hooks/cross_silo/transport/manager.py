"""FedML's communication manager over gRPC, for the server and for clients under the plug-in."""

from __future__ import annotations

import json
import logging
import pickle
import threading
from collections.abc import Sequence
from typing import Any

from fedml.core.distributed.communication.constants import CommunicationConstants
from fedml.core.distributed.communication.grpc import grpc_comm_manager_pb2
from fedml.core.distributed.communication.grpc.grpc_comm_manager import GRPCCommManager, GRPCMapping
from fedml.core.distributed.communication.message import Message

from fedml_gradcam_ae.hooks.cross_silo.transport import event_loop
from fedml_gradcam_ae.hooks.cross_silo.transport.addresses import Addresses, join
from fedml_gradcam_ae.hooks.cross_silo.transport.identity import load_identity
from fedml_gradcam_ae.hooks.cross_silo.transport.intake import Intake, size_of_model
from fedml_gradcam_ae.hooks.cross_silo.transport.limits import raise_open_files
from fedml_gradcam_ae.hooks.cross_silo.transport.receiving import Doorstep, Receiver
from fedml_gradcam_ae.hooks.cross_silo.transport.sending import Address, deliver
from fedml_gradcam_ae.hooks.cross_silo.transport.settings import read_transport_settings

log = logging.getLogger("fedml_gradcam_ae")

STOP_SECONDS = 2.0  # Time that calls on their way have to finish when the receiver stops.


class GRPCTransport(GRPCCommManager):  # type: ignore[misc]  # fedml has no types
    """GRPCCommManager with the same wire format that no peer can block, stop, or fill with data.

    Messages are decoded instead of unpickled, and checked. A message that does not fit is dropped and reported. An
    unreadable message of a known client reaches the server as an upload that is `Refused`, so that the round need not
    wait for the client.

    Args:
        grpc_ipconfig_path: the path of the table of addresses.
        topic: as for FedML's class.
        client_rank: the rank of this process; 0 is the server.
        client_num: as for FedML's class.
        args: FedML's args.

    Attributes:
        complaints: the reports of dropped messages.

    Raises:
        SettingsError: if a setting is wrong or a TLS file cannot be used.
    """

    def __init__(
        self,
        grpc_ipconfig_path: str,
        topic: str = "fedml",
        client_rank: int = 0,
        client_num: int = 0,
        args: Any = None,
    ) -> None:
        # FedML's own constructor would start FedML's server. So it is not called, and its attributes are set here.
        self._topic, self.grpc_ipconfig_path = topic, grpc_ipconfig_path
        self._observers: list[Any] = []
        self.client_rank = self.client_id = int(client_rank)
        self.client_num, self.args = client_num, args
        self.grpc_mappings: dict[int, Any] = {}
        self._init_grpc_mappings()
        self.is_running = True

        self.settings = read_transport_settings(args, self.client_rank)
        self._identity = self._load_identity()
        port = CommunicationConstants.GRPC_BASE_PORT + self.client_rank
        default = GRPCMapping(self.client_id, self.client_rank, "0.0.0.0", port, None)
        self._own = self.grpc_mappings.setdefault(self.client_id, default)
        self._addresses = Addresses(self.grpc_mappings)
        self._members = self._by_rank([0] if self.client_rank else json.loads(getattr(args, "client_id_list", "[]")))
        self._intake = Intake(
            self.client_rank,
            self.settings,
            self._observers,
            receivers=lambda: self._addresses.ids(self.client_rank),
            args=args,
            learn=self._learn,
        )
        self.complaints = self._intake.complaints
        self._receiver: Receiver | None = None
        self._listening = threading.Lock()

    def expect(self, model_bytes: int, clients: Sequence[int]) -> None:
        """Set the limits for the model and the senders, and start to listen.

        Args:
            model_bytes: the size of the global model, in bytes.
            clients: the ids of all processes that may send: all clients for the server, the server for a client.

        Raises:
            PortTakenError: if this process cannot listen on its address.
        """
        self._members = self._by_rank(clients)
        self._intake.expect(model_bytes, clients)
        self._listen()

    def handle_receive_message(self) -> None:
        """Receive messages until `stop_receive_message` is called.

        Raises:
            PortTakenError: if this process cannot listen on its address.
        """
        try:
            if self.client_rank != 0:
                # A client must listen before it reports as online, since the server may answer at once.
                self.expect(size_of_model(self._observers), [0])
            self._notify_connection_ready()
            self._listen()
            self._intake.serve(lambda: self.is_running)
        finally:
            self.stop_receive_message()
            if self._receiver is not None:
                event_loop.run(self._receiver.stop(STOP_SECONDS), STOP_SECONDS + 5)
            self.complaints.flush(everything=True)

    def stop_receive_message(self) -> None:
        """Stop receiving; calls that are on their way are still answered."""
        self.is_running = False

    def send_message(self, msg: Message) -> None:
        """Send a message and wait until the receiver has accepted it; a client retries while its server is not up.

        Args:
            msg: the message.

        Raises:
            LookupError: if the receiver's address is not known.
            UndeliveredError: if the receiver does not accept the message within `send_timeout` seconds.
        """
        own = self._own
        msg.add_params(self.MSG_ARG_KEY_SENDER_RANK, self.client_rank)
        msg.add_params(self.MSG_ARG_KEY_SENDER_IP, own.ingress_ip or own.grpc_server_ip)
        msg.add_params(self.MSG_ARG_KEY_SENDER_PORT, own.grpc_server_port)
        request = grpc_comm_manager_pb2.CommRequest(client_id=self.client_id, message=pickle.dumps(msg))
        address = self._address(int(msg.get_receiver_id()))
        deliver(address, request.SerializeToString(), self.settings.send_timeout, patient=self.client_rank != 0)

    def _listen(self) -> None:
        """Start to listen; start again with a new receiver if the size of the largest message has changed."""
        with self._listening:
            if self._receiver is not None:
                if self._receiver.adopt(self._intake.limits):
                    return
                event_loop.run(self._receiver.stop(STOP_SECONDS))
            address = join(self._own.grpc_server_ip, self._own.grpc_server_port)
            credentials = None if self._identity is None else self._identity.server_credentials()
            connections, timeout = raise_open_files(), self.settings.receive_timeout
            doorstep = Doorstep(
                None if self._identity is None else self._identify, lambda rank: rank in self._members, self._take_in
            )
            receiver = Receiver(
                *(address, credentials, self._intake.limits, connections, timeout, doorstep), complaints=self.complaints
            )
            event_loop.run(receiver.start())
            if self._identity is None and self.client_rank == 0 and self._receiver is None:
                log.warning(
                    "no TLS: any process that reaches %s can act as any client, and the models can be read in transit "
                    "(server_args.tls turns it on)",
                    address,
                )
            self._receiver = receiver

    def _load_identity(self) -> Any:
        if self.settings.tls is None:
            return None
        return load_identity(self.settings.tls, self.client_rank, self.args)

    def _identify(self, auth_context: Any) -> int | None:
        from fedml_gradcam_ae.hooks.cross_silo.transport import tls

        rank: int | None = tls.rank_of(auth_context)
        return rank

    def _by_rank(self, ids: Sequence[Any]) -> dict[int, int]:
        return {self._addresses.rank(int(id)): int(id) for id in ids}

    def _address(self, receiver: int) -> Address:
        """Return a receiver's address, with the certificate's name that it must show if TLS is on."""
        target = self._addresses.target(receiver)
        if self._identity is None:
            return Address(target)
        from fedml_gradcam_ae.hooks.cross_silo.transport import tls

        options = tls.channel_options(self._addresses.rank(receiver))
        return Address(target, self._identity.channel_credentials(), tuple(options))

    def _learn(self, sender: int, parameters: dict[str, Any]) -> None:
        self._addresses.learn(sender, parameters, again=self._identity is not None)

    def _take_in(self, rank: int | None, claimed: int, content: bytes) -> None:
        """Check a message's sender, rate and size, and queue it for decoding; runs in the event loop."""
        report = self.complaints.report
        if rank is not None and claimed != rank:
            report(
                "identity", f"the holder of the certificate of rank {rank} sent a message as rank {claimed}: dropped"
            )
            return
        sender = self._members.get(claimed)
        if sender is None:
            report("stranger", f"client {claimed}: a message of a client that is not in the federation was dropped")
            return
        self._intake.put(sender, content)
