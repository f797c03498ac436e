"""Sending of one message with a deadline."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import grpc

from fedml_gradcam_ae.contract.shown import printable
from fedml_gradcam_ae.hooks.cross_silo.transport.undelivered import UndeliveredError

METHOD = "/gRPCCommManager/sendMessage"  # Name of FedML's gRPC method.
RETRY_SECONDS = 1.0  # Time between two attempts to send a message.


@dataclass(frozen=True)
class Address:
    """Address of a receiver, with what is needed to connect to it.

    Args:
        target: the host and port.
        credentials: the credentials of the channel; None without TLS.
        options: further gRPC options of the channel.
    """

    target: str
    credentials: grpc.ChannelCredentials | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def open(self) -> grpc.Channel:
        """Return a new gRPC channel to the receiver."""
        options = [
            *(("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", 1_000_000)),
            *(("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)),
            *self.options,
        ]
        if self.credentials is None:
            return grpc.insecure_channel(self.target, options=options)
        return grpc.secure_channel(self.target, self.credentials, options=options)


def deliver(address: Address, request: bytes, timeout: float, patient: bool = False) -> None:
    """Deliver a message.

    Args:
        address: the address of the receiver.
        request: a serialized CommRequest.
        timeout: the time in seconds within which the receiver must accept it.
        patient: whether to retry within this time while the receiver is not up or has no room.

    Raises:
        UndeliveredError: if the receiver did not accept the message.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            with address.open() as channel:
                channel.unary_unary(METHOD)(request, timeout=max(0.001, end - time.monotonic()))
            return
        except grpc.RpcError as error:
            reason = _reason(error, timeout)
            if not (patient and _may_pass(error) and time.monotonic() + RETRY_SECONDS < end):
                raise UndeliveredError(f"{address.target}: {reason}") from None
        time.sleep(RETRY_SECONDS)


def _may_pass(error: Any) -> bool:
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return "larger than max" not in (error.details() or "")
    foreign = any(word in (error.details() or "").lower() for word in ("handshake", "certificate", "ssl"))
    return error.code() == grpc.StatusCode.UNAVAILABLE and not foreign


def _reason(error: Any, timeout: float) -> str:
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer in {timeout:g} s"
    return printable(f"{error.code().name}: {error.details()}")
