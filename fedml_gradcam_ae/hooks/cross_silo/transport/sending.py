"""Sending: at once and with an error for a client, from a thread for each receiver on the server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from fedml_gradcam_ae.hooks.cross_silo.transport.complaints import printable
from fedml_gradcam_ae.hooks.cross_silo.transport.envelope import FINISH, INIT, SYNC

log = logging.getLogger("fedml_gradcam_ae")

METHOD = "/gRPCCommManager/sendMessage"
RETRY_SECONDS = 1.0


class UndeliveredError(ConnectionError):
    """A receiver did not take a message; the text says why in one line."""


@dataclass(frozen=True)
class Address:
    """Where a receiver listens, and with what it is called.

    Args:
        target: host and port.
        credentials: None without TLS.
        options: of the channel.
    """

    target: str
    credentials: grpc.ChannelCredentials | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def open(self) -> grpc.Channel:
        """A new connection."""
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
        address: of the receiver.
        request: a CommRequest, serialized.
        timeout: seconds until it must be there.
        patient: whether to try again until then while the receiver is not there, or has no room.

    Raises:
        UndeliveredError: if it was not taken.
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


@dataclass(frozen=True)
class Letter:
    """A message on its way out.

    Args:
        message: as it was given.
        request: as it is sent.
    """

    message: Any
    request: bytes

    @property
    def slot(self) -> int:
        """What kind of message it replaces while that still waits: all models are one kind."""
        kind = self.message.get_type()
        return SYNC if kind == INIT else int(kind)


class Worker:
    """Delivers to one receiver, one message after the other, in a thread of its own.

    At most one message of each kind waits; a newer one takes its place.

    Args:
        receiver: the receiver's id.
        address: where it is now.
        timeout: seconds for each call.
        on_undelivered: told in this thread of each message that did not arrive, with the reason.
    """

    def __init__(
        self,
        receiver: int,
        address: Callable[[], Address],
        timeout: float,
        on_undelivered: Callable[[int, Any, str], None],
    ) -> None:
        self.receiver, self.timeout = receiver, timeout
        self._address, self._on_undelivered = address, on_undelivered
        self._waiting: dict[int, Letter] = {}
        self._replaced: list[Letter] = []
        self._busy = self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"to client {receiver}", daemon=True)
        self._thread.start()

    def put(self, letter: Letter) -> None:
        """Let a message wait for its turn; a FINISH comes after what already waits, and nothing comes after it."""
        with self._change:
            if (old := self._waiting.pop(letter.slot, None)) is not None and old.slot != FINISH:
                self._replaced.append(Letter(old.message, b""))
            self._waiting[letter.slot] = letter
            if (last := self._waiting.pop(FINISH, None)) is not None:
                self._waiting[FINISH] = last
            self._change.notify_all()

    def close(self, until: float) -> None:
        """Let what waits go out until a moment of `time.monotonic`, and end."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            if threading.current_thread() is not self._thread:
                self._change.wait_for(lambda: not (self._busy or self._waiting), max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._change:
                self._busy = False
                self._change.notify_all()
                self._change.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                letter = self._waiting.pop(next(iter(self._waiting)))
                replaced, self._replaced = self._replaced, []
                self._busy = True
            for old in replaced:
                self._tell(old, "a newer message took its place before it was sent")
            try:
                deliver(self._address(), letter.request, self.timeout)
            except Exception as error:  # a worker must outlive whatever one message does
                self._tell(letter, str(error))

    def _tell(self, letter: Letter, reason: str) -> None:
        try:
            self._on_undelivered(self.receiver, letter.message, printable(reason))
        except Exception:
            log.exception("client %s: what follows from an undelivered message failed", self.receiver)


class Outbox:
    """The workers of all receivers.

    Args:
        address: finds a receiver's address when it is needed.
        timeout: seconds for each call.
        on_undelivered: as for `Worker`.
    """

    def __init__(
        self, address: Callable[[int], Address], timeout: float, on_undelivered: Callable[[int, Any, str], None]
    ) -> None:
        self._address, self._timeout, self._on_undelivered = address, timeout, on_undelivered
        self._workers: dict[int, Worker] = {}
        self._lock = threading.Lock()

    def put(self, receiver: int, letter: Letter) -> None:
        """Hand a message to its receiver's worker."""
        with self._lock:
            worker = self._workers.get(receiver)
            if worker is None:
                worker = Worker(receiver, lambda: self._address(receiver), self._timeout, self._on_undelivered)
                self._workers[receiver] = worker
        worker.put(letter)

    def close(self, grace: float) -> None:
        """Let what waits go out, for at most so many seconds."""
        with self._lock:
            workers = list(self._workers.values())
        until = time.monotonic() + grace
        for worker in workers:
            worker.close(until)
