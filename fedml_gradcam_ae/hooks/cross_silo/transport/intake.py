"""Way of a message from outside to FedML's managers, the same over all transports: limits, decoding, checks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from time import sleep, thread_time
from typing import Any

from fedml.core.distributed.communication.message import Message

from fedml_gradcam_ae.contract.shown import printable
from fedml_gradcam_ae.hooks.cross_silo.complaints import Complaints
from fedml_gradcam_ae.hooks.cross_silo.decoding import Budget, Envelope, Undecodable, decode_message
from fedml_gradcam_ae.hooks.cross_silo.refused import Refused
from fedml_gradcam_ae.hooks.cross_silo.transport import envelope as schema
from fedml_gradcam_ae.hooks.cross_silo.transport.buckets import Buckets
from fedml_gradcam_ae.hooks.cross_silo.transport.inbox import Arrival, Inbox
from fedml_gradcam_ae.hooks.cross_silo.transport.limits import Limits, of_a_model
from fedml_gradcam_ae.hooks.cross_silo.transport.settings import TransportSettings

WAKE_UP_SECONDS = 0.2  # Longest wait for a message before the loop checks whether to stop.
LARGEST_UPLOAD = 4.0  # Default of the setting `largest_upload`, in multiples of the model's size.
AROUND_THE_DATA = 64_000_000  # Bytes of the decoding budget beside the largest message: about 16 kB for each tensor.
AGAIN_SECONDS = 0.5  # Wait before a message whose content could not be had is read again.
UNKNOWN_MODEL = 250_000_000  # Assumed size in bytes of a client's unknown model; times LARGEST_UPLOAD it gives 1 GB.

Decode = Callable[[int, bytes, Budget], Envelope]


class NotNowError(Exception):
    """The service that holds a message's content does not answer, which is no fault of the message's sender."""


class Intake:
    """Queue of messages from outside, which are decoded, checked and passed on one after the other.

    A message that does not fit is dropped and reported. An unreadable message of a known client reaches the server as
    an upload that is `Refused`, so that the round need not wait for the client.

    Args:
        rank: the rank of this process; 0 is the server.
        settings: the settings of the transport.
        observers: FedML's managers, which get the messages; the list may change later.
        receivers: function that returns the ids of this process.
        args: FedML's args, for the setting `largest_upload`.
        decode: function of (sender, bytes, budget) that returns the decoded message; it raises `Undecodable`
            or `NotNowError` alone.
        learn: function of (sender, parameters) that is called on the server with each message that passed.

    Attributes:
        limits: the limits on messages.
        inbox: the messages that wait.
        complaints: the reports of dropped messages.
    """

    def __init__(
        self,
        rank: int,
        settings: TransportSettings,
        observers: list[Any],
        receivers: Callable[[], Collection[int]],
        args: Any = None,
        decode: Decode = lambda _sender, content, budget: decode_message(content, budget),
        learn: Callable[[int, dict[str, Any]], None] = lambda _sender, _parameters: None,
    ) -> None:
        self.limits = Limits()
        self.inbox = Inbox()
        self.complaints = Complaints()
        self._rank, self._settings, self._observers = rank, settings, observers
        self._decode, self._receivers, self._learn = decode, receivers, learn
        self._largest_upload = getattr(args, "largest_upload", LARGEST_UPLOAD)
        self._lock = threading.Lock()
        self._buckets = Buckets(settings.messages_per_second, 2 * settings.messages_per_second + 20)

    def expect(self, model_bytes: int, senders: Sequence[int]) -> None:
        """Set the limits for the model.

        Args:
            model_bytes: the size of the global model, in bytes.
            senders: the ids of all processes that may send.
        """
        self.limits = of_a_model(model_bytes, self._largest_upload, len(senders))

    def put(self, sender: int, content: bytes | Refused) -> None:
        """Check the rate and the size of a message and queue it; may be called from any thread.

        Args:
            sender: the id of the sender, as the transport knows it.
            content: the message, or the reason why it was not kept.
        """
        with self._lock:
            within = self._buckets.take(sender)
        if not within:
            rate = f"{self._settings.messages_per_second:g}"
            self._report("flood", sender, f"a message was dropped: more than {rate} messages a second")
            return
        most = self.limits.message
        if not isinstance(content, Refused) and len(content) > most:
            content = Refused(f"it has {len(content)} bytes, where at most {most} are taken")
        if not self.inbox.put(Arrival(sender, content), most):
            self._report("queue", sender, "a message was dropped: too many of its messages are waiting")

    def serve(self, running: Callable[[], bool]) -> None:
        """Pass messages on until `running` returns False; sleep while none is waiting."""
        while running():
            arrival = self.inbox.get(WAKE_UP_SECONDS)
            self.complaints.flush()
            if arrival is None:
                continue
            started = thread_time()  # CPU time of this thread, without that of other threads
            message = self._read(arrival)
            self.inbox.spent(arrival.sender, thread_time() - started)
            if message is not None:
                for observer in self._observers:
                    observer.receive_message(message.get_type(), message)

    def _read(self, arrival: Arrival) -> Message | None:
        """Decode and check a message; return it, or a `Refused` upload in its place, or None if it is dropped."""
        if isinstance(arrival.content, Refused):
            return self._refuse(arrival.sender, "size", arrival.content.reason)
        try:
            found = self._decode(arrival.sender, arrival.content, self._budget())
        except Undecodable as error:
            return self._refuse(arrival.sender, error.kind, str(error))
        except NotNowError as error:
            self._report("service", arrival.sender, f"a message is read again later: {error}")
            self.inbox.put(arrival, self.limits.message)
            sleep(AGAIN_SECONDS)
            return None
        types = {kind for observer in self._observers for kind in observer.message_handler_dict if kind != 0}
        try:
            header, parameters = schema.check(found, types, self._receivers())
            if header.sender != arrival.sender:
                raise schema.Misfit("sender", f"its sender is given as {header.sender}")
        except schema.Misfit as error:
            if type(found.type) is int and found.type == schema.UPLOAD:
                return self._refuse(arrival.sender, error.kind, str(error))
            self._report(f"schema: {error.kind}", arrival.sender, f"a message was dropped: {error}")
            return None
        if self._rank == 0:
            self._learn(header.sender, parameters)
        message = Message(header.type, header.sender, header.receiver)
        for key, value in parameters.items():
            message.add_params(key, value)
        return message

    def _budget(self) -> Budget:
        """Return the limits for decoding one message; its memory is little more than the largest message."""
        limits, size = self._settings, self.limits.message + AROUND_THE_DATA
        return Budget(size, limits.decode_objects, limits.decode_depth, limits.decode_seconds)

    def _refuse(self, sender: int, kind: str, reason: str) -> Message | None:
        """Report an unreadable message; on the server, return a `Refused` upload in its place."""
        reason = printable(reason)
        self._report(kind, sender, f"a message was not read: {reason}")
        if self._rank != 0:
            return None
        message = Message(schema.UPLOAD, sender, 0)
        message.add_params(schema.MODEL_PARAMS, Refused(reason))
        return message

    def _report(self, kind: str, sender: int, text: str) -> None:
        self.complaints.report(kind, f"{'the server' if self._rank else f'client {sender}'}: {text}")


def size_of_model(observers: Sequence[Any]) -> int:
    """Return the size in bytes of the model that a FedML client trains, or `UNKNOWN_MODEL` if no model is found."""
    for observer in observers:
        try:
            state = observer.trainer_dist_adapter.trainer.trainer.model.state_dict()
            return sum(int(tensor.numel() * tensor.element_size()) for tensor in state.values())
        except AttributeError:
            continue
    return UNKNOWN_MODEL
