"""FedML's communication manager over an MQTT broker and an S3 bucket, for the server and clients under the plug-in."""

from __future__ import annotations

import json
import logging
import pickle
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from fedml.core.distributed.communication.base_com_manager import BaseCommunicationManager
from fedml.core.distributed.communication.message import Message
from typing_extensions import override

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.contract.shown import shown
from fedml_gradcam_ae.hooks.cross_silo.decoding import Budget, Envelope, Undecodable, decode_value
from fedml_gradcam_ae.hooks.cross_silo.refused import Refused
from fedml_gradcam_ae.hooks.cross_silo.transport import envelope as schema
from fedml_gradcam_ae.hooks.cross_silo.transport.intake import Intake, size_of_model
from fedml_gradcam_ae.hooks.cross_silo.transport.objects import Objects
from fedml_gradcam_ae.hooks.cross_silo.transport.services import BROKER, BUCKET, Broker, Bucket, read_service
from fedml_gradcam_ae.hooks.cross_silo.transport.serving import Serving
from fedml_gradcam_ae.hooks.cross_silo.transport.settings import read_transport_settings
from fedml_gradcam_ae.hooks.cross_silo.transport.undelivered import UndeliveredError

log = logging.getLogger("fedml_gradcam_ae")

LARGEST_PAYLOAD = 64_000  # Bytes of the largest message on the broker; FedML's own have less than 4,000.
QOS = 2  # Each message is delivered once, as with FedML.
POLL_SECONDS = 0.05  # Time between two looks at the connection.
RETRY_SECONDS = 1.0  # Time between two attempts to connect.
REFUSALS = {1: "protocol version", 2: "client identifier", 4: "wrong MQTT_USER or MQTT_PWD", 5: "not authorized"}
UNAVAILABLE, DENIED = 3, 128  # The broker's codes for "not now", and for a topic that may not be read.
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # The end of the key of each of FedML's objects.


class MQTTS3Transport(Serving, BaseCommunicationManager):  # type: ignore[misc]  # fedml has no types
    """Transport with the messages and objects of FedML's `MqttS3MultiClientsCommManager`.

    Objects are decoded instead of unpickled. The broker's thread only queues messages: a model is fetched, and a round
    aggregated, in the thread of `handle_receive_message`, so that the connection stays alive meanwhile.

    A topic says who sent a message: clients publish on `fedml_RUN_CLIENT`, the server on `fedml_RUN_SERVER_CLIENT`.
    The broker's access list must allow each topic to its client alone; nothing in a message proves its sender.

    Args:
        broker: the mapping `customized_training_mqtt_config`.
        bucket: the mapping `customized_training_s3_config`.
        args: FedML's args.

    Attributes:
        complaints: the reports of dropped messages.
        farewell_seconds: the longest useful wait for clients to report their end. FedML's own clients disconnect before
            their last message is handed over, so the wait is short.

    Raises:
        SettingsError: if a key is missing or wrong.
    """

    farewell_seconds = 5.0

    def __init__(self, broker: Any, bucket: Any, args: Any) -> None:
        self._rank = int(args.rank)
        self._broker = read_service(Broker, broker, BROKER)
        self._server_id = int(getattr(args, "server_id", 0) or 0)
        ids = [int(id) for id in json.loads(str(args.client_id_list))]
        self._id = int(getattr(args, "client_id", None) or ids[0]) if self._rank else 0
        self._prefix = f"fedml_{args.run_id}_"
        self._senders = self._topics(ids)
        self.settings = read_transport_settings(args, self._rank)
        self._objects = Objects(read_service(Bucket, bucket, BUCKET), self.settings.send_timeout)
        self._observers: list[Any] = []
        own = {self._id, self._rank} if self._rank else {0, self._server_id}
        self._intake = Intake(self._rank, self.settings, self._observers, lambda: own, args, self._decode)
        self.complaints = self._intake.complaints
        self.is_running, self._answered = True, threading.Event()
        self._problem = "does not answer"
        self._stored: tuple[Any, str, str] = None, "", ""
        self._storing = threading.Lock()
        name = f"FedML_CS_{args.run_id}_{self._id}_{uuid.uuid4()}"
        self._client: Any = mqtt.Client(client_id=name, clean_session=True)
        self._client.username_pw_set(self._broker.MQTT_USER, self._broker.MQTT_PWD)
        self._client.on_connect, self._client.on_subscribe = self._on_connect, self._on_subscribe
        self._client.on_message = self._on_message

    def expect(self, model_bytes: int, clients: Sequence[int]) -> None:
        """Set the limits for the model and the senders, and connect to the broker.

        Args:
            model_bytes: the size of the global model, in bytes.
            clients: the ids of all processes that may send: all clients for the server, the server for a client.

        Raises:
            SettingsError: if the broker cannot be reached.
        """
        self._senders = self._topics(clients)
        self._intake.expect(model_bytes, clients)
        self._connect()

    @override
    def begin(self) -> None:
        """Have a client connect, and wait for the broker's answer.

        Raises:
            SettingsError: if the broker cannot be reached or does not take this process.
        """
        if self._rank != 0:
            self.expect(size_of_model(self._observers), [self._server_id])
        self._answered.wait(self.settings.send_timeout)
        if self._problem:
            raise SettingsError(f"{self._where} {self._problem}.")

    def close(self) -> None:
        """Disconnect from the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def send_message(self, msg: Message) -> None:
        """Store a message's model in the bucket, publish the message, and wait until the broker has taken it.

        Args:
            msg: the message.

        Raises:
            UndeliveredError: if the bucket or, within `send_timeout` seconds, the broker does not take it.
        """
        receiver = int(msg.get_receiver_id())
        topic = f"{self._prefix}{self._id}" if self._rank else f"{self._prefix}{self._server_id}_{receiver}"
        payload = dict(msg.get_params())
        if payload.get(schema.MODEL_PARAMS) is not None:
            key, url = self._store(topic, payload[schema.MODEL_PARAMS])
            payload |= {Message.MSG_ARG_KEY_MODEL_PARAMS: key, Message.MSG_ARG_KEY_MODEL_PARAMS_KEY: key}
            msg.add_params(Message.MSG_ARG_KEY_MODEL_PARAMS_URL, url)  # for FedML's platform
        self._publish(topic, json.dumps(payload, default=float))  # numbers of other libraries

    @property
    def _where(self) -> str:
        return f"comm_args.{BROKER}: the MQTT broker {self._broker.name}"

    def _topics(self, senders: Sequence[int]) -> dict[str, int]:
        """Return the ids of the processes that may send, by the topic on which each publishes."""
        if self._rank:
            return {f"{self._prefix}{self._server_id}_{self._id}": 0}
        return {f"{self._prefix}{sender}": int(sender) for sender in senders}

    def _connect(self) -> None:
        """Connect to the broker; a client waits for one that is not up."""
        end = time.monotonic() + (self.settings.send_timeout if self._rank else 0)
        while True:
            try:
                self._client.connect(self._broker.BROKER_HOST, self._broker.BROKER_PORT, self._broker.MQTT_KEEPALIVE)
                break
            except (OSError, ValueError) as error:
                if time.monotonic() + RETRY_SECONDS > end:
                    raise SettingsError(f"{self._where} cannot be reached: {error}.") from None
            time.sleep(RETRY_SECONDS)
        self._client.loop_start()
        if self._rank == 0:
            log.warning(
                "MQTT + S3: any process that may publish on a client's topic at %s can act as that client, and whoever "
                "reads the bucket has the models (access lists of the broker and the bucket restrict both)",
                self._broker.name,
            )

    def _on_connect(self, client: Any, _data: object, _flags: object, code: int) -> None:
        if code == 0:
            client.subscribe([(topic, QOS) for topic in self._senders])
        elif code != UNAVAILABLE:  # else paho tries again
            self._answer(f"refuses this process: {REFUSALS.get(code, f'code {code}')}")

    def _on_subscribe(self, _client: object, _data: object, _number: int, granted: Sequence[int]) -> None:
        denied = [topic for topic, quality in zip(self._senders, granted, strict=False) if quality == DENIED]
        self._answer(f"does not let this process read {', '.join(denied)}" if denied else "")

    def _answer(self, problem: str) -> None:
        self._problem = problem
        self._answered.set()
        if problem:
            self.complaints.report("broker", f"{self._where} {problem}")

    def _on_message(self, _client: object, _data: object, message: Any) -> None:
        """Queue a message; runs in paho's thread, which an error would end."""
        if message.retain:
            return  # it is from before this process subscribed
        sender, size = self._senders.get(message.topic), len(message.payload)
        if sender is None:
            self.complaints.report("stranger", "a message on a topic that was not subscribed was dropped")
        elif size > LARGEST_PAYLOAD:
            reason = f"it has {size} bytes, where at most {LARGEST_PAYLOAD} are taken beside the model"
            self._intake.put(sender, Refused(reason))
        else:
            self._intake.put(sender, bytes(message.payload))

    def _decode(self, sender: int, content: bytes, budget: Budget) -> Envelope:
        """Return a message with its model in the place of the object's key."""
        parameters = read_payload(content)
        key = parameters.get(schema.MODEL_PARAMS, "")
        if self._rank == 0 and parameters.get("msg_type") != schema.UPLOAD:
            key = ""  # no other message has a model, so that none makes the server wait for an object
        if key in ("", None):
            parameters.pop(schema.MODEL_PARAMS, None)
        else:
            # A client that names the object of another would upload that client's model as its own. One object of the
            # server is for all clients, and has the number of the first.
            owner = f"{self._server_id}_[0-9]+" if self._rank else str(sender)
            if not isinstance(key, str) or not re.fullmatch(f"{re.escape(self._prefix)}{owner}_{UUID}", key):
                raise Undecodable("no object", f"a key must be {self._prefix}{owner}_ and a UUID, found {shown(key)}")
            parameters[schema.MODEL_PARAMS] = decode_value(
                self._objects.fetch(key, self._intake.limits.message), budget
            )
        return Envelope(parameters.get("msg_type"), parameters.get("sender"), parameters.get("receiver"), parameters)

    def _store(self, topic: str, model: Any) -> tuple[str, str]:
        """Store a model, once for all messages that hold it, and return its object's key and URL."""
        with self._storing:
            known, key, url = self._stored
            if known is not model:
                key = f"{topic}_{uuid.uuid4()}"
                url = self._objects.store(key, pickle.dumps(model))
                self._stored = model, key, url
            return key, url

    def _publish(self, topic: str, payload: str) -> None:
        timeout = self.settings.send_timeout
        end = time.monotonic() + timeout
        while not self._client.is_connected() and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        # FedML's messages are retained, although its receivers ignore retained ones: here the broker keeps none.
        sent = self._client.publish(topic, payload, qos=QOS)
        if sent.rc == mqtt.MQTT_ERR_NO_CONN:
            sent.rc = mqtt.MQTT_ERR_SUCCESS  # paho sends it when it is connected again
        try:
            sent.wait_for_publish(max(POLL_SECONDS, end - time.monotonic()))
            taken = sent.is_published()
        except (RuntimeError, ValueError) as error:
            raise UndeliveredError(f"the MQTT broker {self._broker.name}: {error}") from None
        if not taken:
            raise UndeliveredError(f"the MQTT broker {self._broker.name} did not take it in {timeout:g} s")


def read_payload(content: bytes) -> dict[str, Any]:
    """Return the parameters in an MQTT message, which is a JSON object.

    Args:
        content: the message's bytes.

    Raises:
        Undecodable: if it is none.

    Example:
        >>> read_payload(b'{"msg_type": 5}')
        {'msg_type': 5}
        >>> read_payload(b"[5]")
        Traceback (most recent call last):
        ...
        fedml_gradcam_ae.hooks.cross_silo.decoding.errors.Undecodable: broken: it is no JSON object
    """
    try:
        found = json.loads(content.decode())
    except RecursionError:
        raise Undecodable("too deep", "too many nested JSON containers") from None
    except ValueError:
        raise Undecodable("broken", "it is no JSON") from None
    if not isinstance(found, Mapping):
        raise Undecodable("broken", "it is no JSON object")
    return dict(found)
