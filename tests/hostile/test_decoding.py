"""Every hostile message through the decoder, in a process whose memory and time are bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hostile.cases import Case, cases
from patience import PATIENCE

TESTS = Path(__file__).parents[1]
MEGABYTES = 100.0  # the budget's 3 MB, the message itself, and what an allocator rounds up
SECONDS = 4.0  # of processor time: twice the budget's


@pytest.fixture(scope="session")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of each message; one that ends its process, or takes for ever, costs its own case alone."""
    folder = tmp_path_factory.mktemp("decoding")
    left = [case.name for case in cases("message")]
    found: dict[str, dict[str, Any]] = {}
    while left:
        try:
            process = subprocess.run(
                [sys.executable, "-W", "ignore", TESTS / "hostile" / "decode_all.py"],
                input="\n".join(left),
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"},
            )
            output, end = process.stdout, f"the process ended with {process.returncode}: {process.stderr[-500:]}"
        except subprocess.TimeoutExpired as error:
            output, end = (error.stdout or b"").decode(), f"nothing in {PATIENCE:g} s"
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        found.update({line["name"]: line for line in lines})
        left = [name for name in left if name not in found]
        if left:
            found[left[0]] = {"name": left[0], "error": end, "kind": None}
            if not lines and len(left) == len(cases("message")):
                pytest.fail(end)  # not even the first: the decoder is not there
            left = left[1:]
    assert not (folder / "the-server-was-mine").exists()
    return found


@pytest.mark.parametrize("case", cases("message"), ids=lambda case: case.name)
def test_a_message_is_decoded_or_refused_within_its_budget(decoded: dict[str, dict[str, Any]], case: Case) -> None:
    result = decoded[case.name]
    assert result["error"] is None, result["error"]
    if case.undecodable:
        assert result["kind"], "it was decoded"
    if result["kind"]:
        assert result["kind"].replace("-", "").replace("_", "").replace(" ", "").isalnum()
        assert result["text"].isprintable()
        assert len(result["text"]) <= 1000
    assert result["megabytes"] < MEGABYTES
    assert result["seconds"] < SECONDS
