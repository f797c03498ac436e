"""Event loop in a thread of its own, for all messages that this process receives."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop, which is started once, since gRPC's asyncio interface needs a single loop in a process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="gRPC", daemon=True).start()
    return loop


def start(work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Start a coroutine in the loop and return its future."""
    return asyncio.run_coroutine_threadsafe(work, _loop())


def run(work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Run a coroutine in the loop and return its result; called from any other thread.

    Args:
        work: the coroutine.
        timeout: the longest wait in seconds; None: no limit.

    Raises:
        TimeoutError: if the result does not come in time.
    """
    return start(work).result(timeout)
