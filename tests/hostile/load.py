"""What loads a server without any message that it could complain about: each a block during which the load lasts."""

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
def two_thousand_small_messages(port: int) -> Iterator[None]:
    """From the hostile client, as fast as they are answered."""
    content = p.status(client_status=p.value("IDLE"))
    request = grpc_comm_manager_pb2.CommRequest(client_id=p.ME, message=content)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = grpc_comm_manager_pb2_grpc.gRPCCommManagerStub(channel)

        def send() -> None:
            with contextlib.suppress(grpc.RpcError):
                stub.sendMessage(request, timeout=30)

        with repeating(send, 2000):
            yield


@load
def two_hundred_half_open_connections(port: int) -> Iterator[None]:
    """Each has sent half of the first line of HTTP/2."""
    with connections(port, 200, PREFACE[:12]):
        yield


@load
def a_byte_a_second(port: int) -> Iterator[None]:
    """Twenty senders of a request that comes in a byte at a time."""
    with connections(port, 20, PREFACE + SETTINGS) as sockets:
        left = iter(b"\x00\x40\x00\x01\x04\x00\x00\x00\x01" + bytes(1000))

        def send() -> None:
            byte = bytes([next(left)])
            for each in sockets:
                with contextlib.suppress(OSError):
                    each.send(byte)

        with repeating(send, 1000, pause=1.0):
            yield


@load
def five_hundred_connects_and_disconnects(port: int) -> Iterator[None]:
    """One after the other."""

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as made:
            made.send(PREFACE)

    with repeating(connect, 500):
        yield


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
def repeating(what: Callable[[], None], count: int, pause: float = 0.0) -> Iterator[None]:
    """Do it so often in another thread, or until the block is over."""
    over = threading.Event()

    def work() -> None:
        for _ in range(count):
            if over.wait(pause):
                return
            what()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)


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
