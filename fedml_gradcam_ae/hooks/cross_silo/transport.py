"""FedML's gRPC transport: it sleeps while idle, and no message can run code or fill the memory."""

from __future__ import annotations

import logging
import queue
from typing import Any

from fedml.core.distributed.communication.grpc import grpc_comm_manager, grpc_comm_manager_pb2, grpc_server
from fedml.core.distributed.communication.message import Message

from fedml_gradcam_ae.hooks.cross_silo.decoding import Budget, decode_message
from fedml_gradcam_ae.hooks.cross_silo.refused import Refused
from fedml_gradcam_ae.hooks.patching import Patches

log = logging.getLogger("fedml_gradcam_ae")

UPLOAD = 3  # MSG_TYPE_C2S_SEND_MODEL_TO_SERVER in fedml.cross_silo.server.message_define
WAKE_UP_SECONDS = 0.2
STOP_SECONDS = 2.0
DECODED = 4  # times the size of a message, and
MARGIN = 64_000_000  # bytes: what decoding it may take


def patch(patches: Patches) -> None:
    """Replace both ends of the queue that messages wait in."""
    patches.replace(
        grpc_server.GRPCCOMMServicer,
        "sendMessage",
        _take_in,
        mends="keeps messages of up to 1000 MB each until the server gets to them",
    )
    patches.replace(
        grpc_comm_manager.GRPCCommManager,
        "message_handling_subroutine",
        _handle_messages,
        mends="spins at full speed while idle; unpickles whatever reaches the port, which runs code",
    )
    patches.replace(
        grpc_comm_manager.GRPCCommManager,
        "stop_receive_message",
        _stop,
        mends="cuts off the last client in the middle of its goodbye",
    )


def _stop(self: Any) -> None:
    """Stop receiving, but let the messages that are under way be answered."""
    self.grpc_server.stop(grace=STOP_SECONDS)
    self.is_running = False


def _take_in(self: Any, request: Any, context: Any) -> Any:
    """gRPC's thread: queue a message with the client that it says it is from."""
    content: bytes | Refused = request.message
    largest = getattr(self, "largest_message", None)
    if largest is not None and len(request.message) > largest:
        content = Refused(f"it has {len(request.message)} bytes, where at most {largest} are taken")
    self.message_q.put((request.client_id, content))
    return grpc_comm_manager_pb2.CommResponse()


def _handle_messages(self: Any) -> None:
    """The manager's thread: hand each message to the observers, asleep in between, until the manager stops."""
    while self.is_running:
        try:
            client, content = self.grpc_servicer.message_q.get(timeout=WAKE_UP_SECONDS)
        except queue.Empty:
            continue
        message = _read(client, content)
        for observer in self._observers:
            if message.get_type() in observer.message_handler_dict:
                _remember(self, message)
                observer.receive_message(message.get_type(), message)
            else:
                log.warning("client %s: a message of an unknown type was ignored: %r", client, message.get_type())


def _read(client: int, content: bytes | Refused) -> Message:
    """The message, or in the place of one that cannot be read, a refused upload of the same client."""
    if not isinstance(content, Refused):
        try:
            decoded = decode_message(content, Budget(bytes=DECODED * len(content) + MARGIN))
            int(decoded.sender)
            message = Message(decoded.type, decoded.sender, decoded.receiver)
            for name, value in decoded.parameters.items():
                message.add_params(name, value)
            return message
        except Exception as error:  # the decoder's, and whatever a sender that is no number raises
            content = Refused(str(error))
    log.warning("client %s: a message was not read: %s", client, content.reason)
    message = Message(UPLOAD, client, 0)
    message.add_params(Message.MSG_ARG_KEY_MODEL_PARAMS, content)
    return message


def _remember(self: Any, message: Message) -> None:
    """The address of a sender that the table does not list, as FedML keeps it."""
    sender = int(message.get_sender_id())
    parameters = message.get_params()
    keys = (self.MSG_ARG_KEY_SENDER_RANK, self.MSG_ARG_KEY_SENDER_IP, self.MSG_ARG_KEY_SENDER_PORT)
    if sender not in self.grpc_mappings and all(key in parameters for key in keys):
        rank, address, port = (parameters[key] for key in keys)
        self.grpc_mappings[sender] = grpc_comm_manager.GRPCMapping(
            eid=sender, rank=int(rank), grpc_server_ip=str(address), grpc_server_port=int(port), ingress_ip=str(address)
        )
