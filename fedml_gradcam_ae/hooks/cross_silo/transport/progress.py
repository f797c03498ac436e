"""Progress of incomplete messages, read from the kernel's sockets, since gRPC shows complete messages only."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from urllib.parse import unquote

Connection = tuple[str, int]  # The address and the port of the other side.

SUPPORTED = sys.platform.startswith("linux")  # Whether this module can read the sockets, which needs Linux.
RECEIVED_OFFSET = 128  # Offset in bytes of tcpi_bytes_received in Linux's struct tcp_info.


def parse_peer(peer: str) -> Connection:
    """Return the address and port in gRPC's name for the other side of a call; the port is 0 if there is none.

    Example:
        >>> parse_peer("ipv4:192.0.2.7:51000"), parse_peer("ipv6:%5B2001:db8::7%5D:51000")
        (('192.0.2.7', 51000), ('2001:db8::7', 51000))
    """
    _, _, rest = unquote(peer).partition(":")
    address, _, port = rest.rpartition(":")
    return _plain(address.strip("[]")), int(port) if port.isdigit() else 0


def received(port: int) -> dict[Connection, int]:
    """Return the number of bytes received on each of this process's connections to one of its ports.

    Args:
        port: the port of this process.

    Returns:
        The number of bytes by the other side's address and port; empty if the system is not Linux.
    """
    found: dict[Connection, int] = {}
    for other, connection in _connections(port):
        with contextlib.suppress(OSError, struct.error):  # the socket was closed meanwhile, or is not TCP
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            found[other] = struct.unpack_from("<Q", info, RECEIVED_OFFSET)[0]
    return found


def close(port: int, others: Collection[Connection]) -> None:
    """Close connections to one of this process's ports; to gRPC they look closed by the other side.

    Args:
        port: the port of this process.
        others: the other sides of the connections to close.
    """
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
            # gRPC owns the descriptor and may close it at any time. A copy stays open and may be closed safely.
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.getsockname()[1] == port:
                    other = connection.getpeername()
                    yield (_plain(other[0]), other[1]), connection
        except (OSError, IndexError):
            continue  # the socket was closed meanwhile, or is not connected


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")
