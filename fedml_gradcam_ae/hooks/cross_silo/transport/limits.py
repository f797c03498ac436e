"""How much a process takes from outside, as it follows from the size of the model and the number of clients."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1_000_000
BEFORE_THE_MODEL_IS_KNOWN = 1 * MB
# A message that is too large is read up to here all the same, so that it can be told from whom it is.
TELLABLE = 64 * MB
CONNECTIONS = 4096
RESERVED_FILES = 256


@dataclass(frozen=True)
class Limits:
    """What is taken.

    Args:
        message: the largest message, in bytes.
        senders: how many processes may send.
    """

    message: int = BEFORE_THE_MODEL_IS_KNOWN
    senders: int = 1

    @property
    def tellable(self) -> int:
        """The largest message that gRPC reads at all, in bytes."""
        return max(self.message, TELLABLE)

    @property
    def on_their_way(self) -> int:
        """The most that messages hold that have not come in full, in bytes: one for each sender, and room to spare."""
        return self.senders * self.message + 4 * TELLABLE


def of_a_model(model_bytes: int, largest_upload: float, senders: int) -> Limits:
    """The limits for a model.

    Example:
        >>> of_a_model(1000, 4.0, senders=3).message
        1004000
    """
    return Limits(int(largest_upload * model_bytes) + 1 * MB, max(1, senders))


def raise_open_files() -> int:
    """Allow this process as many open files as it may have.

    Returns:
        How many connections may be open at once, so that other files can still be opened.
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
            pass  # the soft limit stays
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS
    return max(32, min(CONNECTIONS, soft - RESERVED_FILES, soft * 3 // 4))
