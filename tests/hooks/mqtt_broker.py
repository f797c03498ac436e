"""A small MQTT 3.1.1 broker in this process: exact topics, retained messages, QoS 2 handed on at its release.

The brokers on PyPI cannot be installed beside FedML, which pins an old typer.
"""

from __future__ import annotations

import contextlib
import socketserver
import struct
import threading
from typing import Any

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 8, 9, 12, 13, 14


class Broker(socketserver.ThreadingTCPServer):
    """Listens on a free port of the loopback interface until it is closed.

    Attributes:
        port: the port.
        retained: the last retained message of each topic.
        seen: the topics of all messages that were handed on, in order.
    """

    allow_reuse_address = daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.port: int = self.server_address[1]
        self.lock = threading.RLock()
        self.subscribers: dict[str, set[Connection]] = {}
        self.retained: dict[str, bytes] = {}
        self.seen: list[str] = []
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    def hand_on(self, topic: str, payload: bytes, retain: bool) -> None:
        with self.lock:
            self.seen.append(topic)
            if retain:
                self.retained[topic] = payload
            for subscriber in list(self.subscribers.get(topic, ())):
                subscriber.deliver(topic, payload, retained=False)

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Connection(socketserver.StreamRequestHandler):
    server: Broker

    def setup(self) -> None:
        super().setup()
        self.waiting: dict[int, tuple[str, bytes, bool]] = {}  # QoS 2, not released yet
        self.sending = threading.Lock()

    def handle(self) -> None:
        while (packet := self._read()) is not None:
            kind, flags, body = packet
            if kind == CONNECT:
                self._send(CONNACK, b"\0\0")
            elif kind == PUBLISH:
                self._published(flags, body)
            elif kind == PUBREL:
                (number,) = struct.unpack("!H", body)
                message = self.waiting.pop(number, None)
                self._send(PUBCOMP, body)
                if message is not None:
                    self.server.hand_on(*message)
            elif kind == SUBSCRIBE:
                self._subscribe(body)
            elif kind == PINGREQ:
                self._send(PINGRESP, b"")
            elif kind == DISCONNECT:
                return

    def finish(self) -> None:
        with self.server.lock:
            for subscribers in self.server.subscribers.values():
                subscribers.discard(self)

    def deliver(self, topic: str, payload: bytes, retained: bool) -> None:
        name = topic.encode()
        with contextlib.suppress(OSError):  # it is gone
            self._send(PUBLISH, struct.pack("!H", len(name)) + name + payload, flags=int(retained))

    def _published(self, flags: int, body: bytes) -> None:
        quality, retain = flags >> 1 & 3, bool(flags & 1)
        (length,) = struct.unpack("!H", body[:2])
        topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
        if quality == 0:
            self.server.hand_on(topic, rest, retain)
            return
        number, payload = rest[:2], rest[2:]
        if quality == 1:
            self._send(PUBACK, number)
            self.server.hand_on(topic, payload, retain)
        else:
            self.waiting[struct.unpack("!H", number)[0]] = (topic, payload, retain)
            self._send(PUBREC, number)

    def _subscribe(self, body: bytes) -> None:
        topics, rest = [], body[2:]
        while rest:
            (length,) = struct.unpack("!H", rest[:2])
            topics.append(rest[2 : 2 + length].decode())
            rest = rest[3 + length :]
        with self.server.lock:
            for topic in topics:
                self.server.subscribers.setdefault(topic, set()).add(self)
            self._send(SUBACK, body[:2] + bytes([0] * len(topics)))
            for topic in topics:
                if topic in self.server.retained:
                    self.deliver(topic, self.server.retained[topic], retained=True)

    def _read(self) -> tuple[int, int, bytes] | None:
        try:
            first = self.rfile.read(1)
            if not first:
                return None
            size, shift, byte = 0, 0, 128
            while byte & 128:
                byte = self.rfile.read(1)[0]
                size |= (byte & 127) << shift
                shift += 7
            return first[0] >> 4, first[0] & 15, self.rfile.read(size)
        except (OSError, IndexError):
            return None

    def _send(self, kind: int, body: bytes, flags: int = 0) -> None:
        size, length = len(body), bytearray()
        while True:
            size, byte = size >> 7, size & 127
            length.append(byte | (128 if size else 0))
            if not size:
                break
        packet: Any = bytes([kind << 4 | flags]) + bytes(length) + body
        with self.sending:
            self.connection.sendall(packet)
