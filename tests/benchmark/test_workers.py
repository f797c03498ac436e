"""What becomes of a run whose process dies."""

import subprocess
import sys

import pytest

from benchmark.running.workers import Workers


class Doomed(Workers):
    """Its processes read a run, write this file, and die without an answer."""

    def __init__(self, out, written) -> None:
        super().__init__(1, out, 0)
        self.written = written

    def _start(self):
        code = f"import pathlib, sys; sys.stdin.readline(); pathlib.Path({str(self.written)!r}).touch(); sys.exit(3)"
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("left_behind", "event"), [("result.json", "finished"), ("rounds.jsonl", "its process ended with 3")]
)
def test_a_death_after_the_result_was_written_is_no_failure(make_run, tmp_path, left_behind, event) -> None:
    run = make_run()
    (tmp_path / run.folder).mkdir()
    with Doomed(tmp_path, tmp_path / run.folder / left_behind) as workers:
        ((who, what),) = workers.work_through([run])
    assert who == run
    assert what.startswith(event)
    assert (tmp_path / run.folder / "error.txt").exists() == (event != "finished")
