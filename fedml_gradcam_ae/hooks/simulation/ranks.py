"""The processes of an MPI run end together: one that stops alone would leave the others waiting for ever."""

from __future__ import annotations

import os
import sys
import traceback
from time import sleep
from types import TracebackType
from typing import Any

from fedml_gradcam_ae.hooks.patching import Patches

# mpirun drops what it has not yet read from a rank when it ends it.
SECONDS_FOR_LAST_WORDS = 0.5


def stop_all(error: BaseException) -> None:
    """Print what went wrong on this rank and end every rank; returns where MPI does not run (any more)."""
    mpi = _running_mpi()
    if mpi is not None:
        world = mpi.COMM_WORLD
        lines = [f"rank {world.Get_rank()} of {world.Get_size()} stops the run:\n", *traceback.format_exception(error)]
        sys.stderr.write("".join(lines))  # at once, so that the lines of several ranks do not mix
        abort(1)


def abort(code: int | str | None) -> None:
    """End every rank with this exit status (or, as in `sys.exit`, this message); not for 0 and None."""
    mpi = _running_mpi()
    if mpi is None or code is None or code == 0:
        return
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    sleep(SECONDS_FOR_LAST_WORDS)
    status = code if isinstance(code, int) else 1
    mpi.COMM_WORLD.Abort(status)
    os._exit(status)  # MPICH's Abort may return for a moment, in which a script would go on


def stop_all_on_uncaught_errors(patches: Patches) -> None:
    """From now on an exception that nobody catches ends every rank, wherever in the user's script it comes from."""
    previous = sys.excepthook
    if getattr(previous, "ends_every_rank", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        stop_all(error)
        previous(kind, error, trace)

    hook.ends_every_rank = True  # type: ignore[attr-defined]
    patches.replace(sys, "excepthook", hook, mends="Python waits for the other ranks before it exits")


def _running_mpi() -> Any:
    """mpi4py.MPI if this process has started MPI and not yet ended it."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized() else None
