"""Marker for an upload that the transport did not read."""


class Refused:
    """Marker in place of a model: the upload was not read, and the round need not wait for another one.

    Args:
        reason: why the upload was not read.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
