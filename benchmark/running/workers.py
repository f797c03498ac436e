"""Worker processes that run simulations in parallel; if one dies, only its current run fails."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import fedml_gradcam_ae

if TYPE_CHECKING:
    from benchmark.config import Run

# The working directory of worker processes.
ROOT = Path(__file__).parents[2]


class Workers:
    """Worker processes, each with one run at a time; a context manager that ends them.

    Main process and workers exchange lines of JSON. A run is sent to a worker. The worker sends "round" after each
    round of the run, and at the end "finished" or the error.

    Args:
        number: of processes.
        out: the results folder.
        lock: the file descriptor that `lock.locked` yields; workers inherit it and so hold the lock.
        remember: bytes of disk for cached local training; see `simulation.simulate`.
    """

    def __init__(self, number: int, out: Path, lock: int, remember: int = 0) -> None:
        self.number, self.out, self.lock, self.remember = number, out, lock, remember
        self._running: set[subprocess.Popen[str]] = set()
        self._events: queue.Queue[tuple[Run, str] | None] = queue.Queue()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in list(self._running):
            process.kill()
            process.wait()

    def work_through(self, runs: list[Run]) -> Iterator[tuple[Run, str]]:
        """Run all simulations and yield their events as they arrive.

        Args:
            runs: the simulations.

        Yields:
            A run, with "round", "finished" or the error that stopped it.
        """
        todo: queue.SimpleQueue[Run] = queue.SimpleQueue()
        for run in runs:
            todo.put(run)
        threads = [threading.Thread(target=self._feed, args=(todo,), daemon=True) for _ in range(self.number)]
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            event = self._events.get()
            if event is None:
                left -= 1
            else:
                yield event

    def _feed(self, todo: queue.SimpleQueue[Run]) -> None:
        """Send run after run to one worker process; replace the process if it dies."""
        process: subprocess.Popen[str] | None = None
        while True:
            try:
                run = todo.get_nowait()
            except queue.Empty:
                break
            if process is None or process.poll() is not None:
                try:
                    process = self._start()
                except OSError as error:  # the system has no process or memory left
                    self._fail(run, f"no process could be started: {error}")
                    continue
            self._run(process, run)
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait()
            self._running.discard(process)
        self._events.put(None)

    def _run(self, process: subprocess.Popen[str], run: Run) -> None:
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(run.model_dump()) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # the worker has died; its output ends below
        for line in process.stdout:
            event = json.loads(line)
            self._events.put((run, event))
            if event != "round":
                return
        process.wait()
        self._running.discard(process)
        if (self.out / run.folder / "result.json").exists():  # the worker died after the run had finished
            self._events.put((run, "finished"))
            return
        self._fail(run, f"its process ended with {process.returncode} (negative: the signal that killed it)")

    def _fail(self, run: Run, error: str) -> None:
        folder = self.out / run.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(error + "\n", encoding="utf-8")
        self._events.put((run, error))

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmark.running.workers", str(self.out), str(self.remember)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            pass_fds=(self.lock,),
        )
        self._running.add(process)
        return process


def work(out: Path, remember: int, tasks: IO[str], answers: IO[str]) -> None:
    """Run simulations in a worker process until there are no more tasks.

    Args:
        out: the results folder.
        remember: bytes of disk for cached local training; see `simulation.simulate`.
        tasks: lines of JSON, one run each.
        answers: where events are written, as lines of JSON.
    """
    lines = attended(tasks)
    fedml_gradcam_ae.register()  # before other imports of FedML, which would print warnings
    from benchmark.config import Run
    from benchmark.running.simulation import simulate

    def answer(event: Any) -> None:
        answers.write(json.dumps(event) + "\n")
        answers.flush()

    for line in lines:
        try:
            simulate(Run(**json.loads(line)), out, lambda _: None, lambda: answer("round"), remember)
        except Exception as error:  # the traceback is in error.txt, and the report shows it
            answer(f"{type(error).__name__}: {error}")
        else:
            answer("finished")


def attended(tasks: IO[str]) -> Iterator[str]:
    """Return the lines of `tasks`, and exit the process as soon as they end, whatever it is doing.

    The main process closes its end when it has every answer. If it closes earlier, the main process has died, perhaps
    of SIGKILL. Workers must then end, since the benchmark may be resumed in the same folders.

    Args:
        tasks: the input of the worker process.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in tasks:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return iter(lines.get, None)


if __name__ == "__main__":
    own_output, sys.stdout = sys.stdout, sys.stderr  # prints must not mix with the answers
    work(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin, own_output)
