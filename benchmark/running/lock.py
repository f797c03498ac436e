"""A lock that lets one command at a time use a results folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fedml_gradcam_ae.contract.settings import SettingsError

# The file that is locked, inside the results folder; it holds the id of the process that locked it last.
NAME = ".lock"
PATIENCE = 10.0  # seconds to wait for the lock; workers end sooner than that after their main process was killed


@contextmanager
def locked(out: Path) -> Iterator[int]:
    """Lock the results folder against other commands while the block runs.

    The lock belongs to the open file, which worker processes inherit. If the main process is killed, the lock is
    released only when its last worker has ended. No process then still writes into the folders of runs that are about
    to be repeated.

    Args:
        out: the results folder; it is created if necessary.

    Yields:
        The file descriptor that workers have to inherit.

    Raises:
        SettingsError: if another command holds the lock for longer than `PATIENCE`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / NAME).open("a+", encoding="utf-8") as file:
        _take(file, out)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


def _take(file: IO[str], out: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    reported = False
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = f"the benchmark of process {file.read().strip()}"
        except OSError as error:  # some network file systems have no locks
            return print(f"{out} cannot be locked ({error}): let no other command write into it at the same time.")
        if time.monotonic() > deadline:
            raise SettingsError(f"{out} is in use by {holder}: wait until it has ended, or choose another --out.")
        if not reported:
            print(f"{out} is in use by {holder}: waiting up to {PATIENCE:g} s.", flush=True)
            reported = True
        time.sleep(0.1)
