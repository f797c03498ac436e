"""One event loop in a thread of its own for everything that this process receives."""

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
    """Started once: gRPC's asyncio interface wants a single loop in a process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="gRPC", daemon=True).start()
    return loop


def start(work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Start work in the loop."""
    return asyncio.run_coroutine_threadsafe(work, _loop())


def run(work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Do work in the loop and wait for its result, from any other thread."""
    return start(work).result(timeout)
