"""What stands for an upload that a transport would not even read."""


class Refused:
    """Stands where a model would be: the upload was not even read. The round need not wait for it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
