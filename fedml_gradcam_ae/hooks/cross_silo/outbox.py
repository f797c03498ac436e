"""Messages on their way to a transport that may block: a receiver that takes none holds up one thread, and no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Outbox:
    """Sends in the background, in order for each receiver.

    A message takes the place of one of the same kind that still waits, so that little waits for a stuck receiver.

    Args:
        send: hands a message to the transport; may block and may raise.
        failed: told the receiver, the message and the reason, from another thread, when `send` has raised.
    """

    def __init__(self, send: Callable[[Any], None], failed: Callable[[int, Any, str], None]) -> None:
        self._send, self._failed = send, failed
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        # The receivers that a thread is at work for, with what waits for them.
        self._waiting: dict[int, dict[str, Any]] = {}

    def put(self, receiver: int, message: Any, kind: str) -> Any | None:
        """Have a message sent.

        Args:
            receiver: the client.
            message: for it.
            kind: what it takes the place of.

        Returns:
            The message whose place it took, if one was waiting.
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
        """Wait until all is sent, for at most so long."""
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
                reason = error.details() if hasattr(error, "details") else error  # what gRPC has to say, in one line
                self._failed(receiver, message, str(reason))
