"""Rounds complete whatever load one client, or a stranger, puts on the server. How long they take is printed."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")

from hostile.load import LOADS, Load, silent_listener, silent_service
from hostile.playing import Federation, federation

ROUNDS = 8  # without, and as many with the load
UNDEFENDED = None


def seconds_of_rounds(made: Federation, first: int) -> list[float]:
    found = []
    for number in range(first, first + ROUNDS):
        start = time.monotonic()
        played = made.play(None, number)
        assert played.end is None, f"round {number}: {played.end}\n{played.report[-2000:]}"
        found.append(time.monotonic() - start)
    return found


def compare(made: Federation, loaded: AbstractContextManager[None], what: str) -> None:
    before = seconds_of_rounds(made, 1)
    with loaded:
        during = seconds_of_rounds(made, 1 + ROUNDS)
    made.finish(1 + 2 * ROUNDS)
    print(f"\n{what}: a round takes {1000 * median(before):.0f} ms without, {1000 * median(during):.0f} ms with it")


@pytest.mark.long
@pytest.mark.parametrize("name", LOADS)
def test_rounds_complete_under_load(name: str, tmp_path: Path) -> None:
    load: Load = LOADS[name]
    with federation(tmp_path / "run", 2 * ROUNDS, UNDEFENDED) as made:
        compare(made, load(made.silo.ports[0]), name)


@pytest.mark.long
@pytest.mark.parametrize("silence", [silent_listener, silent_service])
def test_rounds_complete_beside_a_client_that_never_answers(silence: Load, tmp_path: Path) -> None:
    """It said that it is there, and from then on answers no call; the time limit of the round is one second."""
    with federation(tmp_path / "run", ROUNDS, UNDEFENDED, client_timeout=1.0, minimum_clients=5) as made:
        made.hostile.receive(1)
        made.hostile.server.stop(None).wait()
        with silence(made.silo.ports[made.hostile.rank]):
            times = seconds_of_rounds(made, 1)
            made.finish(1 + ROUNDS)
        print(f"\n{silence.__name__}: a round takes {median(times):.1f} s, where its time limit is 1 s")
