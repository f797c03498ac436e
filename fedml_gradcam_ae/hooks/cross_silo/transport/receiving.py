"""gRPC server that sees a call when its headers arrive, and decides then whether to read its message."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import aio

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks.cross_silo.complaints import Complaints
from fedml_gradcam_ae.hooks.cross_silo.transport import progress
from fedml_gradcam_ae.hooks.cross_silo.transport.idle import Idle
from fedml_gradcam_ae.hooks.cross_silo.transport.limits import Limits
from fedml_gradcam_ae.hooks.cross_silo.transport.request import read_request
from fedml_gradcam_ae.hooks.cross_silo.transport.unfinished import Call, Unfinished

SWEEP_SECONDS = 0.5  # Time between two checks for slow calls and idle connections.
IDLE_SECONDS = 1.0  # Time that a connection may be without a call before it may be closed, if many are open.
REPORT_SECONDS = 60.0  # Shortest time between two reports about closed idle connections.
MOST_MILLISECONDS = 2**31 - 1  # Largest time that gRPC's options can hold, since they are 32-bit numbers.


class PortTakenError(SettingsError):
    """Error for an address on which a process cannot listen."""


@dataclass(frozen=True)
class Doorstep:
    """Functions through which a receiver asks its owner.

    Args:
        identify: function of a call's `auth_context` that returns the rank in the other side's certificate, or None
            if the certificate is for no rank. None without TLS.
        may_call: function of a rank that returns whether the holder of its certificate may call.
        take: function of (the certificate's rank or None, CommRequest.client_id, message) that accepts a message. It
            runs in the event loop and must be quick.
    """

    identify: Callable[[Any], int | None] | None
    may_call: Callable[[int | None], bool]
    take: Callable[[int | None, int, bytes], None]


class Receiver:
    """gRPC server for FedML's calls.

    Args:
        address: the host and port to listen on.
        credentials: the server's credentials; None without TLS.
        limits: the limits on messages.
        connections: the maximum number of open connections.
        receive_timeout: the longest time in seconds that a message may take to arrive.
        doorstep: the functions that decide about calls and accept messages.
        complaints: where dropped calls are reported.

    Attributes:
        port: the port that it listens on; 0 before `start`.
        unfinished: the calls whose message has not arrived completely.
    """

    def __init__(
        self,
        address: str,
        credentials: grpc.ServerCredentials | None,
        limits: Limits,
        connections: int,
        receive_timeout: float,
        doorstep: Doorstep,
        complaints: Complaints,
    ) -> None:
        self.address, self.credentials = address, credentials
        self.limits, self.connections = limits, connections
        self.unfinished = Unfinished(receive_timeout, limits.on_their_way)
        self.port = 0
        self._doorstep, self._complaints = doorstep, complaints
        self._evictions: dict[Call, asyncio.Future[str]] = {}
        self._server: aio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._idle = Idle(connections, IDLE_SECONDS)
        self._reported = float("-inf")

    async def start(self) -> None:
        """Start to listen.

        Raises:
            PortTakenError: if that is not possible; the message names the address.
        """
        self._server = aio.server(options=self._options())
        handler = grpc.stream_unary_rpc_method_handler(self._receive)
        handlers = {"sendMessage": handler}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("gRPCCommManager", handlers),))
        try:
            if self.credentials is None:
                self.port = self._server.add_insecure_port(self.address)
            else:
                self.port = self._server.add_secure_port(self.address, self.credentials)
        except RuntimeError:
            raise PortTakenError(
                f"cannot listen on {self.address}: another process listens there, or the address is none of this "
                "machine's (grpc_ipconfig_path names the table of addresses)"
            ) from None
        await self._server.start()
        self._sweeper = asyncio.create_task(self._sweep())

    def adopt(self, limits: Limits) -> bool:
        """Change the limits, if that is possible without a new receiver.

        gRPC cannot change the size of the largest message that it reads after the start.

        Args:
            limits: the new limits.

        Returns:
            Whether the limits were changed.
        """
        if limits.tellable != self.limits.tellable:
            return False
        self.limits, self.unfinished.bytes = limits, limits.on_their_way
        return True

    async def stop(self, grace: float) -> None:
        """Accept no more calls; calls that are on their way have `grace` seconds to finish."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            await self._server.stop(grace)

    def _options(self) -> list[tuple[str, int]]:
        return [
            # Without this option a second server on the same port would get half of the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self.limits.tellable),
            ("grpc.max_send_message_length", 1_000_000),
            # FedML compresses nothing, and a few compressed kB could become as many MB.
            ("grpc.per_message_decompression", 0),
            ("grpc.max_metadata_size", 8192),
            ("grpc.max_concurrent_streams", 4),
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.server_handshake_timeout_ms", 5_000),
            ("grpc.max_connection_idle_ms", 15_000),
            # FedML's clients open a connection for each message. A connection older than this accepts no new calls
            # and ends with its last call.
            ("grpc.max_connection_age_ms", 20_000),
            (
                "grpc.max_connection_age_grace_ms",
                min(MOST_MILLISECONDS, math.ceil(1000 * self.unfinished.receive_timeout)),
            ),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 0),
        ]

    async def _receive(self, _requests: Any, context: Any) -> bytes:
        """Handle one call, of which gRPC has read only the headers so far."""
        rank = None
        if self._doorstep.identify is not None:
            rank = self._doorstep.identify(context.auth_context())
            if rank is None or not self._doorstep.may_call(rank):
                name = "for no rank" if rank is None else f"for rank {rank}"
                self._complaints.report(
                    "certificate", f"a call of {context.peer()}, its certificate {name}, was refused"
                )
                await context.abort(
                    grpc.StatusCode.PERMISSION_DENIED, f"the certificate is {name} that may call this process"
                )
        content = await self._read(Call(progress.parse_peer(context.peer()), rank, time.monotonic()), context)
        if content is None:
            return b""
        try:
            client_id, message = read_request(content)
        except ValueError as error:
            self._complaints.report(
                "request", f"a call of {context.peer()} is no CommRequest, and was dropped: {error}"
            )
            return b""
        del content
        self._doorstep.take(rank, client_id, message)
        return b""

    async def _read(self, call: Call, context: Any) -> bytes | None:
        """Return the call's message when it has arrived completely, or None if it never does."""
        eviction = self._evictions[call] = asyncio.get_running_loop().create_future()
        self._evict(self.unfinished.enter(call))
        reading = asyncio.ensure_future(context.read())
        size = 0
        try:
            await asyncio.wait({reading, eviction}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                content = reading.result()
                if content is aio.EOF:
                    kind = "too large or incomplete"
                    self._complaints.report(kind, f"a call of {context.peer()} was dropped: its message is {kind}")
                    return None
                size = len(content)
                return bytes(content)
        finally:
            reading.cancel()
            self.unfinished.leave(call, size)
            self._evictions.pop(call, None)
        reason = eviction.result()
        self._complaints.report("call ended", f"a call of {context.peer()} was ended: {reason}")
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
        return None

    def _evict(self, calls: list[tuple[Call, str]]) -> None:
        for call, reason in calls:
            eviction = self._evictions.get(call)
            if eviction is not None and not eviction.done():
                eviction.set_result(reason)

    async def _sweep(self) -> None:
        """End calls that are slow or hold too many bytes together, and close idle connections if many are open."""
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(SWEEP_SECONDS)
                now = time.monotonic()
                received = progress.received(self.port)
                if len(self.unfinished):
                    self._evict(self.unfinished.sweep(now, received))
                idle = set(self._idle.sweep(now, received, self.unfinished.connections))
                if idle:
                    progress.close(self.port, idle)
                    self._report_idle(len(received), len(idle), now)

    def _report_idle(self, open: int, idle: int, now: float) -> None:
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._complaints.report(
                "connections",
                f"{open} of {self.connections} connections were taken, and {idle} that had no call were closed: where "
                "clients do not get through, let only their addresses reach the port",
            )
