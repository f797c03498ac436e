"""Joint end of all processes of an MPI run: if one stopped alone, the others would wait forever."""

from __future__ import annotations

import os
import sys
import traceback
from time import sleep
from types import TracebackType
from typing import Any

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks.patching import Patches

# Seconds to wait before a rank is ended, since mpirun drops output that it has not read by then.
SECONDS_FOR_LAST_WORDS = 0.5
# Seconds that each rank leaves to those before it to print what all of them refuse.
SECONDS_TO_REFUSE = 60.0
# What MPICH, PMIx and Open MPI tell a process that they start.
STARTED_BY_MPI = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")


def refuse(error: SettingsError) -> None:
    """Print once for all ranks why they refuse to run, and end all ranks.

    Each rank finds the same mistake in the same settings, so rank 0 prints it while the others wait for their end. Has
    no effect in a process that is the only one.

    Args:
        error: the error to print.
    """
    if _running_mpi() is None and not any(name in os.environ for name in STARTED_BY_MPI):
        return
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return
    if MPI.COMM_WORLD.Get_size() > 1:
        sleep(MPI.COMM_WORLD.Get_rank() * SECONDS_TO_REFUSE)
        sys.stderr.write(f"error: {error}\n")
        abort(2)


def check_mpi() -> None:
    """Check that MPI can be used.

    Raises:
        SettingsError: if mpi4py or an MPI is missing.
    """
    try:
        import mpi4py.MPI  # noqa: F401
    except (ImportError, RuntimeError) as error:  # no mpi4py, or no MPI that it could load
        raise SettingsError(
            f"backend: MPI needs mpi4py and an MPI that it can load, found: {error}; "
            "for example: pip install mpi4py mpich."
        ) from None


def check_world(clients: int, size: int) -> None:
    """Check that each client of a round has a rank.

    Args:
        clients: the number of clients of a round.
        size: the number of ranks.

    Raises:
        SettingsError: if there are fewer or more ranks.
    """
    needed = clients + 1
    if size != needed:
        raise SettingsError(
            f"client_num_per_round: {clients} needs {needed} MPI ranks, one for the server and one for each client, "
            f"found {size}; start it with mpirun -np {needed}."
        )


def stop_all(error: BaseException) -> None:
    """Print an error of this rank with its traceback and end all ranks.

    Has no effect if this process has not started MPI or has ended it already. Of mistakes in the settings, only the
    message is printed, and only once.

    Args:
        error: the error to print.
    """
    if isinstance(error, SettingsError):
        refuse(error)
    mpi = _running_mpi()
    if mpi is not None:
        world = mpi.COMM_WORLD
        lines = [f"rank {world.Get_rank()} of {world.Get_size()} stops the run:\n", *traceback.format_exception(error)]
        sys.stderr.write("".join(lines))  # in one call, so that the lines of several ranks do not mix
        abort(1)


def abort(code: int | str | None) -> None:
    """End all ranks.

    Has no effect for 0 and None, and in a process without MPI.

    Args:
        code: the exit status; or, as in `sys.exit`, a message to print, with exit status 1.
    """
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
    os._exit(status)  # MPICH's Abort may return before the process ends, and the script would go on


def stop_all_on_uncaught_errors(patches: Patches) -> None:
    """Make every uncaught exception in the user's script end all ranks.

    Args:
        patches: the list that restores `sys.excepthook` later.
    """
    previous = sys.excepthook
    if getattr(previous, "ends_every_rank", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        stop_all(error)
        previous(kind, error, trace)

    hook.ends_every_rank = True  # type: ignore[attr-defined]
    patches.replace(sys, "excepthook", hook, mends="Python waits for the other ranks before it exits")


def _running_mpi() -> Any:
    """Return the module mpi4py.MPI while MPI is running in this process, else None."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized() else None
