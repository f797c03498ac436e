"""Sending in the background over a transport that may block: a stuck receiver blocks its own thread only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Outbox:
    """Background sender that keeps the order of messages for each receiver.

    A new message replaces a waiting message of the same kind, so that few messages wait for a stuck receiver.

    Args:
        send: function that hands a message to the transport; it may block and may raise.
        failed: function of (receiver, message, reason), called from another thread after `send` has raised.
    """

    def __init__(self, send: Callable[[Any], None], failed: Callable[[int, Any, str], None]) -> None:
        self._send, self._failed = send, failed
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        # Waiting messages by kind, for each receiver that has a sending thread.
        self._waiting: dict[int, dict[str, Any]] = {}

    def put(self, receiver: int, message: Any, kind: str) -> Any | None:
        """Queue a message for sending.

        Args:
            receiver: the client's id.
            message: the message.
            kind: the kind of the message; a waiting message of this kind is replaced.

        Returns:
            The replaced message, or None.
        """
        with self._lock:
            if receiver in self._waiting:
                replaced = self._waiting[receiver].pop(kind, None)
                self._waiting[receiver][kind] = message
                return replaced
            self._waiting[receiver] = {kind: message}
        threading.Thread(target=self._work, args=[receiver], name=f"to client {receiver}", daemon=True).start()
        return None

    def drain(self, seconds: float) -> None:
        """Wait until all messages are sent, for at most `seconds`."""
        with self._idle:
            self._idle.wait_for(lambda: not self._waiting, timeout=seconds)

    def _work(self, receiver: int) -> None:
        while True:
            with self._lock:
                waiting = self._waiting[receiver]
                if not waiting:
                    del self._waiting[receiver]
                    self._idle.notify_all()
                    return
                message = waiting.pop(next(iter(waiting)))
            try:
                self._send(message)
            except Exception as error:  # each transport has its own
                reason = error.details() if hasattr(error, "details") else error  # gRPC's reason in one line
                self._failed(receiver, message, str(reason))
