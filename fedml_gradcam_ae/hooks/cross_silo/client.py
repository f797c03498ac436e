"""Cross-silo client that names the round of each upload and ends when the server tells it to."""

from __future__ import annotations

import secrets
from typing import Any

from fedml.cross_silo.client import client_initializer
from fedml.cross_silo.client.fedml_client_master_manager import ClientMasterManager
from fedml.cross_silo.client.message_define import MyMessage

from fedml_gradcam_ae.hooks.cross_silo.numbering import PROCESS, ROUND, ROUNDS, whole_number
from fedml_gradcam_ae.hooks.cross_silo.transport import close, init_transport
from fedml_gradcam_ae.hooks.patching import Patches


def patch(patches: Patches) -> None:
    """Replace ClientMasterManager in the module where FedML's initializer looks it up."""
    patches.replace(
        client_initializer,
        "ClientMasterManager",
        NumberedClient,
        mends="counts its rounds itself, so that a round trained twice ends it early; uploads say no round; over "
        "MQTT + S3 and MPI it runs code from models",
    )


class NumberedClient(ClientMasterManager):  # type: ignore[misc]  # fedml has no types
    """ClientMasterManager that uses the server's round numbers, if the server sends them."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self._process = secrets.token_hex(8)
        self._number: int | None = None
        super().__init__(*args, **keywords)

    def _init_manager(self) -> None:
        init_transport(self, super()._init_manager)

    def run(self) -> None:
        """Train until the server ends the run, then close the connection."""
        failed = True
        try:
            super().run()
            failed = False
        finally:
            close(self.com_manager, failed)

    def finish(self) -> None:
        """Stop receiving; FedML's own method would also end MPI, and with it the script's own use of it."""
        self.com_manager.stop_receive_message()

    def handle_message_init(self, msg_params: Any) -> None:
        """Train on the first model.

        A restarted server sends a first model again. FedML's own client would ignore it; this one trains on it.
        """
        if self.is_inited:
            self.handle_message_receive_model_from_server(msg_params)
        else:
            self._follow(msg_params)
            super().handle_message_init(msg_params)

    def handle_message_receive_model_from_server(self, msg_params: Any) -> None:
        """Train on a later model, or end with the final one."""
        self._follow(msg_params)
        super().handle_message_receive_model_from_server(msg_params)

    def send_message(self, message: Any) -> None:
        """Send a message: an upload with its round number, a status with the name of this process."""
        if message.get_type() == MyMessage.MSG_TYPE_C2S_SEND_MODEL_TO_SERVER and self._number is not None:
            message.add_params(ROUND, self._number)
        elif message.get_type() == MyMessage.MSG_TYPE_C2S_CLIENT_STATUS:
            message.add_params(PROCESS, self._process)
        super().send_message(message)

    def _follow(self, message: Any) -> None:
        """Set FedML's own round counter and number of rounds to the server's."""
        number, rounds = whole_number(message.get(ROUND)), whole_number(message.get(ROUNDS))
        self._number = number
        if number is not None and rounds is not None:
            self.round_idx, self.num_rounds = number - 1, rounds
