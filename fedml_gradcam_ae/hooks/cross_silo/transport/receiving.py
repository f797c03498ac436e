"""Receiving: a call is seen when its headers arrive, before its message, and its message is read or not."""

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

SWEEP_SECONDS = 0.5
IDLE_SECONDS = 1.0  # that a connection may be without a call where many are
REPORT_SECONDS = 60.0
MOST_MILLISECONDS = 2**31 - 1  # gRPC's options are 32-bit numbers


class PortTakenError(SettingsError):
    """A server cannot listen where it should."""


@dataclass(frozen=True)
class Doorstep:
    """What a receiver asks its owner.

    Args:
        identify: the rank of the other side's certificate, from its `auth_context`; None without TLS.
        may_call: whether the holder of a rank's certificate may call at all.
        take: takes (the certificate's rank or None, CommRequest.client_id, message), in the event loop: must be quick.
    """

    identify: Callable[[Any], int | None] | None
    may_call: Callable[[int | None], bool]
    take: Callable[[int | None, int, bytes], None]


class Receiver:
    """gRPC's server.

    Args:
        address: host and port.
        credentials: None without TLS.
        limits: how much is taken.
        connections: the most that may be open at once.
        receive_timeout: seconds that a message may take.
        doorstep: what is done with calls and messages.
        complaints: where dropped calls are reported.
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
        """Listen.

        Raises:
            PortTakenError: if that is not possible; it names the address.
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
        """Go on with other limits; False if that takes a new receiver, since gRPC has been told the old ones."""
        if limits.tellable != self.limits.tellable:
            return False
        self.limits, self.unfinished.bytes = limits, limits.on_their_way
        return True

    async def stop(self, grace: float) -> None:
        """Take no more calls; those that are on their way have `grace` seconds."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            await self._server.stop(grace)

    def _options(self) -> list[tuple[str, int]]:
        return [
            # Else a second server on the same port gets half of the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self.limits.tellable),
            ("grpc.max_send_message_length", 1_000_000),
            # FedML compresses nothing, and a few kB could become as many MB.
            ("grpc.per_message_decompression", 0),
            ("grpc.max_metadata_size", 8192),
            ("grpc.max_concurrent_streams", 4),
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.server_handshake_timeout_ms", 5_000),
            ("grpc.max_connection_idle_ms", 15_000),
            # FedML's clients open a connection for each message; a connection that takes no new calls any more
            # ends with its last one.
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
        """One call: gRPC has read its headers only."""
        rank = None
        if self._doorstep.identify is not None:
            rank = self._doorstep.identify(context.auth_context())
            if rank is None or not self._doorstep.may_call(rank):
                name = "for no rank" if rank is None else f"for rank {rank}"
                self._complaints.report(
                    "certificate", f"a call of {context.peer()}, its certificate {name}, was refused"
                )
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"the certificate is {name} that may call here")
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
        """The call's message, once all of it is here; None if it never comes."""
        eviction = self._evictions[call] = asyncio.get_running_loop().create_future()
        self._evict(self.unfinished.enter(call))
        reading = asyncio.ensure_future(context.read())
        size = 0
        try:
            await asyncio.wait({reading, eviction}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                content = reading.result()
                if content is aio.EOF:
                    kind = "too large or broken off"
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
        """End calls that are slow or too large together, and close idle connections where they are many."""
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
