"""Processes that run simulations side by side; one that dies costs the run that it was at, and no other."""

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

ROOT = Path(__file__).parents[1]


class Workers:
    """A few worker processes, each with one run at a time.

    Main and worker talk in lines of JSON: a run goes in, "round" comes out after each of its rounds, then "finished" or
    the error. `lock` is what `lock.locked` yields: they hold it as well. `remember` is `simulate`'s.
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
        """Pairs of a run and "round", "finished" or what stopped it, as they come."""
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
        """Give one worker run after run; start another one if it dies."""
        process: subprocess.Popen[str] | None = None
        while True:
            try:
                run = todo.get_nowait()
            except queue.Empty:
                break
            if process is None or process.poll() is not None:
                try:
                    process = self._start()
                except OSError as error:  # no more processes or memory for one
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
            pass  # it has died; that shows below
        for line in process.stdout:
            event = json.loads(line)
            self._events.put((run, event))
            if event != "round":
                return
        process.wait()
        self._running.discard(process)
        if (self.out / run.folder / "result.json").exists():  # it died after its work, before it could say so
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
    """What a worker process does until there is nothing more to read."""
    lines = attended(tasks)
    fedml_gradcam_ae.register()  # first, since importing FedML prints warnings otherwise
    from benchmark.config import Run
    from benchmark.running.simulation import simulate

    def answer(event: Any) -> None:
        answers.write(json.dumps(event) + "\n")
        answers.flush()

    for line in lines:
        try:
            simulate(Run(**json.loads(line)), out, lambda _: None, lambda: answer("round"), remember)
        except Exception as error:  # it is in error.txt, and the report shows it
            answer(f"{type(error).__name__}: {error}")
        else:
            answer("finished")


def attended(tasks: IO[str]) -> Iterator[str]:
    """The lines of `tasks`; where they end, the process ends, whatever it is doing.

    The main process closes its end when it has every answer. If it closes earlier, the main process has died, perhaps
    of SIGKILL, and nobody must be at work in its folders when the matrix is resumed.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in tasks:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return iter(lines.get, None)


if __name__ == "__main__":
    own_output, sys.stdout = sys.stdout, sys.stderr  # whatever prints must not come between the answers
    work(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin, own_output)
