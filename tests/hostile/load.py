"""Connections and calls that bring nothing: each a block during which they load a server.

Floods and slow senders are in tests/hooks/attacks_on_a_port.py.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import grpc
from fedml.core.distributed.communication.grpc import grpc_comm_manager_pb2, grpc_comm_manager_pb2_grpc

from hostile import pickles as p

METHOD = "/gRPCCommManager/sendMessage"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
Load = Callable[[int], AbstractContextManager[None]]
LOADS: dict[str, Load] = {}


def load(block: Callable[[int], Iterator[None]]) -> Load:
    """Register a load: a generator from the server's port."""
    LOADS[block.__name__.replace("_", " ")] = made = contextlib.contextmanager(block)
    return made


@load
def eleven_hundred_idle_connections(port: int) -> Iterator[None]:
    """More than a process may have files open, on many machines."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with connections(port, 1100, PREFACE + SETTINGS):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@load
def as_many_unfinished_calls_as_clients(port: int) -> Iterator[None]:
    """Calls whose message never comes."""
    with unfinished_calls(port, p.ME):
        yield


@load
def a_hundred_unfinished_calls(port: int) -> Iterator[None]:
    """The same, over many connections."""
    with unfinished_calls(port, 100):
        yield


@contextlib.contextmanager
def connections(port: int, count: int, greeting: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that have said this; a server may close them or take none."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                made.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=2)))
                made[-1].send(greeting)
        yield made


@contextlib.contextmanager
def unfinished_calls(port: int, count: int) -> Iterator[None]:
    """Calls that have begun, each on a connection of its own, and send no message until the block is over."""
    over = threading.Event()

    def messages() -> Iterator[Any]:
        over.wait()
        return
        yield

    with contextlib.ExitStack() as stack:
        for number in range(count):
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.primary_user_agent", str(number))]
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}", options=options))
            channel.stream_unary(METHOD).future(messages())
        time.sleep(1.0)  # until they are there: gRPC does not tell
        yield
        over.set()


@contextlib.contextmanager
def silent_listener(port: int) -> Iterator[None]:
    """A client that lets the server connect, and says nothing."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(64)
        yield


@contextlib.contextmanager
def silent_service(port: int) -> Iterator[None]:
    """A client that takes the server's calls, and never answers."""
    from concurrent import futures

    over = threading.Event()

    class Silent(grpc_comm_manager_pb2_grpc.gRPCCommManagerServicer):  # type: ignore[misc]
        def sendMessage(self, request: Any, context: Any) -> Any:  # noqa: N802  (gRPC's name)
            over.wait()
            return grpc_comm_manager_pb2.CommResponse()

    server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.max_receive_message_length", -1)])
    grpc_comm_manager_pb2_grpc.add_gRPCCommManagerServicer_to_server(Silent(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield
    finally:
        over.set()
        server.stop(None)
