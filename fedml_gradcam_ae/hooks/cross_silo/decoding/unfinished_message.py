"""A FedML message that the pickle has created and not filled yet."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.values import Unfinished

ATTRIBUTES = {"type", "sender_id", "receiver_id", "msg_params"}  # The attributes of a FedML message.


class UnfinishedMessage(Unfinished):
    """Message whose attributes the pickle sets later.

    Only FedML's own attributes are accepted, since another one could replace a method.
    """

    __slots__ = ("attributes",)
    title = "a message inside of the message"

    def __init__(self) -> None:
        self.attributes: dict[str, Any] | None = None

    @override
    def fill(self, state: Any, ledger: Ledger) -> None:
        """Set the attributes; see `Unfinished.fill`."""
        if self.attributes is not None or type(state) is not dict:
            raise Undecodable("broken", "a message whose attributes are no dictionary, or set twice")
        for name in state:
            if name not in ATTRIBUTES:
                raise Undecodable("unsupported", f"a message with an attribute of its own: {str(name)[:100]}")
        if len(state) != len(ATTRIBUTES):
            raise Undecodable("unsupported", "a message of which attributes are missing")
        self.attributes = state
