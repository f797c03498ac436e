"""The error for a message that did not reach its receiver."""


class UndeliveredError(ConnectionError):
    """Error for a message that its receiver, or the broker, did not accept; its text gives the reason in one line."""
