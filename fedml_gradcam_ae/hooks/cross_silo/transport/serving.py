"""The part that the transports between processes have in common, whatever carries the messages."""

from __future__ import annotations

from typing import Any

from fedml.core.distributed.communication.constants import CommunicationConstants
from fedml.core.distributed.communication.message import Message

from fedml_gradcam_ae.hooks.cross_silo.complaints import Complaints
from fedml_gradcam_ae.hooks.cross_silo.transport.intake import Intake


class Serving:
    """A transport that passes what comes in on to FedML's managers. Mixed in before FedML's class."""

    is_running: bool
    complaints: Complaints
    _intake: Intake
    _observers: list[Any]

    def add_observer(self, observer: Any) -> None:
        """Add a FedML manager, which gets the messages."""
        self._observers.append(observer)

    def remove_observer(self, observer: Any) -> None:
        """Remove a FedML manager."""
        self._observers.remove(observer)

    def begin(self) -> None:
        """Prepare to receive, before the managers are told that the connection is ready."""
        raise NotImplementedError

    def handle_receive_message(self) -> None:
        """Receive messages until `stop_receive_message` is called.

        Raises:
            SettingsError: if the transport cannot begin.
        """
        try:
            self.begin()
            for observer in self._observers:
                observer.receive_message(CommunicationConstants.MSG_TYPE_CONNECTION_IS_READY, Message())
            self._intake.serve(lambda: self.is_running)
        finally:
            self.stop_receive_message()
            self.complaints.flush(everything=True)

    def stop_receive_message(self) -> None:
        """Stop passing messages on; messages can still be sent."""
        self.is_running = False
