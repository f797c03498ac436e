"""The connections to a port as the kernel knows them: gRPC shows a message only when all of it is here."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from urllib.parse import unquote

Connection = tuple[str, int]  # the other side's address and port

SUPPORTED = sys.platform.startswith("linux")
RECEIVED_OFFSET = 128  # tcpi_bytes_received in Linux's struct tcp_info


def parse_peer(peer: str) -> Connection:
    """Read the other side of a call as gRPC names it.

    Example:
        >>> parse_peer("ipv4:192.0.2.7:51000"), parse_peer("ipv6:%5B2001:db8::7%5D:51000")
        (('192.0.2.7', 51000), ('2001:db8::7', 51000))
    """
    _, _, rest = unquote(peer).partition(":")
    address, _, port = rest.rpartition(":")
    return _plain(address.strip("[]")), int(port) if port.isdigit() else 0


def received(port: int) -> dict[Connection, int]:
    """Count the bytes that have come on each of this process's connections to one of its ports.

    Returns:
        By the other side's address and port; empty where the kernel is not Linux.
    """
    found: dict[Connection, int] = {}
    for other, connection in _connections(port):
        with contextlib.suppress(OSError, struct.error):  # closed meanwhile, or no TCP
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            found[other] = struct.unpack_from("<Q", info, RECEIVED_OFFSET)[0]
    return found


def close(port: int, others: Collection[Connection]) -> None:
    """Close connections to one of this process's ports, by their other sides; gRPC finds them closed by the peer."""
    for other, connection in _connections(port):
        if other in others:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _connections(port: int) -> Iterator[tuple[Connection, socket.socket]]:
    if not SUPPORTED:
        return
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            # The descriptor is gRPC's and may close at any time: a copy of it cannot, and closing that is harmless.
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.getsockname()[1] == port:
                    other = connection.getpeername()
                    yield (_plain(other[0]), other[1]), connection
        except (OSError, IndexError):
            continue  # closed meanwhile, or not connected


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")
