"""One command at a time in a results folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fedml_gradcam_ae.contract.settings import SettingsError

NAME = ".lock"
PATIENCE = 10.0  # seconds: longer than workers outlive a main process that was killed


@contextmanager
def locked(out: Path) -> Iterator[int]:
    """Keep other commands out of the results folder while the block runs.

    The lock is on the open file, and workers inherit that. If the main process is killed, the lock goes only when its
    last worker has ended: nobody is then still writing into the folders of runs that are about to start anew.

    Yields:
        the file descriptor that workers are to inherit.

    Raises:
        SettingsError: if another command does not let go of the folder in time.
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
    told = False
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = f"the benchmark that process {file.read().strip()} began"
        except OSError as error:  # not every network file system has locks
            return print(f"{out} cannot be locked ({error}): let no other command write into it at the same time.")
        if time.monotonic() > deadline:
            raise SettingsError(f"{out} is in use by {holder}: wait until it has ended, or choose another --out.")
        if not told:
            print(f"{out} is in use by {holder}: waiting up to {PATIENCE:g} s.", flush=True)
            told = True
        time.sleep(0.1)
