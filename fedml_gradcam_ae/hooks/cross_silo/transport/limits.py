"""Limits on what a process accepts from outside, derived from the model's size and the number of clients."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1_000_000  # Bytes.
BEFORE_THE_MODEL_IS_KNOWN = 1 * MB  # Largest message in bytes until the size of the model is known.
# Messages that are too large are still read up to this size in bytes, so that their sender can be reported.
TELLABLE = 64 * MB
CONNECTIONS = 4096  # Maximum number of open connections.
RESERVED_FILES = 256  # Number of open files that are kept free for other uses than connections.


@dataclass(frozen=True)
class Limits:
    """Limits on messages from outside.

    Args:
        message: the size of the largest accepted message, in bytes.
        senders: the number of processes that may send.
    """

    message: int = BEFORE_THE_MODEL_IS_KNOWN
    senders: int = 1

    @property
    def tellable(self) -> int:
        """Return the size of the largest message that gRPC reads at all, in bytes."""
        return max(self.message, TELLABLE)

    @property
    def on_their_way(self) -> int:
        """Return the most bytes that incomplete messages may hold: one message for each sender, and room to spare."""
        return self.senders * self.message + 4 * TELLABLE


def of_a_model(model_bytes: int, largest_upload: float, senders: int) -> Limits:
    """Return the limits for a model.

    Args:
        model_bytes: the size of the model, in bytes.
        largest_upload: the size of the largest message, in multiples of the model's size; 1 MB is added.
        senders: the number of processes that may send.

    Example:
        >>> of_a_model(1000, 4.0, senders=3).message
        1004000
    """
    return Limits(int(largest_upload * model_bytes) + 1 * MB, max(1, senders))


def raise_open_files() -> int:
    """Raise this process's limit on open files to the maximum that the system allows.

    Returns:
        The number of connections that may be open at once, so that other files can still be opened.
    """
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass  # the soft limit stays as it is
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS
    return max(32, min(CONNECTIONS, soft - RESERVED_FILES, soft * 3 // 4))
