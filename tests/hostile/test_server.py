"""The whole corpus against a real server over gRPC, one process for each defense."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")

from fedml_gradcam_ae import Round
from fedml_gradcam_ae.hooks.defender import hand_back
from hostile import rules
from hostile.cases import Case, cases
from hostile.network import CLAIM, MINE, State, average, honest, network, offsets, state
from hostile.playing import Played, play_all

STARTS = 4  # after a server has ended, the cases that are left are tried on a fresh one, so often
MEGABYTES = 400.0  # that the server may take beyond its first round: some messages of the corpus have 1 to 8 MB
PAPER = {"profile": "paper", "probe_size": "native", "map_size": "native", "epochs": 5, "alpha": 10.0}
DEFENSES: dict[str, dict[str, Any] | None] = {
    "krum": {"defense_type": "krum", "defense_params": {"malicious": 1}},
    "gradcam_ae": {"defense_type": "gradcam_ae", "defense_params": PAPER},
    "none": None,
}


def corpus(defense: str) -> list[Case]:
    """What can be sent; without a defense nothing keeps out an upload that is usable, and poison."""
    return [c for c in cases() if c.on_the_wire and (defense != "none" or c.outcomes != ("bounded",))]


def aggregate(defense: str, uploads: list[State], claims: list[float]) -> State:
    """The new global model by the definition; the published profile keeps all that are usable at this alpha."""
    ids = list(range(len(uploads)))
    round = Round(
        number=1,
        client_ids=ids,
        uploads=uploads,
        samples=claims,
        global_model=state(),
        network=network(),
        test_data=[],
        rejected={} if len(ids) > 5 else {"hostile": "left out"},
    )
    if defense == "krum":
        return average(hand_back(rules.build("krum").judge(round), round))
    return average(list(zip(claims, uploads, strict=True)))


def close(found: State, expected: State) -> bool:
    return list(found) == list(expected) and all(
        torch.allclose(found[name].double(), tensor.double(), rtol=1e-5, atol=1e-6) for name, tensor in expected.items()
    )


def distance(one: State, other: State) -> float:
    return sum(float((one[name].double() - other[name].double()).square().sum()) for name in one) ** 0.5


def problem(defense: str, played: Played, log: str) -> str | None:
    """What is wrong with what became of a case."""
    case = played.case
    assert case is not None
    if played.end is not None:
        return f"the server stopped: {played.end}: {last_error(played.report)}"
    uploads = [honest(offset) for offset in offsets(played.number)]
    clean = aggregate(defense, uploads, [CLAIM] * 5)
    assert played.model is not None
    out = close(played.model, clean)
    if not out and case.may_be_taken:
        claim = CLAIM if case.stands_for is None else case.stands_for
        taken = aggregate(defense, [*uploads, honest(MINE)], [CLAIM] * 5 + [claim])
        # The bound, relative to the model of the round before, may leave less of an upload, but never more.
        bounded = defense == "gradcam_ae" and distance(played.model, clean) <= 1.01 * distance(taken, clean)
        out = close(played.model, taken) or bounded
    if case.outcomes == ("bounded",):
        longest = max(distance(upload, state()) for upload in uploads)
        return None if distance(played.model, clean) <= 2 * longest else "it moved the model further than two clients"
    if not out:
        return f"the aggregate is another: {distance(played.model, clean):.3g} from the honest clients'"
    if case.may_be_taken and case.stands_for is None:
        return None  # it need not be reported: it may have been taken for what it is
    if case.report and not (re.search(case.report, played.report) or re.search(case.report, complaints(log))):
        return f"nothing in the report matches {case.report}: {played.report[:300]}"
    return None


def complaints(log: str) -> str:
    """All lines of the log about what was not taken: those of one kind are written only so often a minute."""
    return "\n".join(line for line in log.splitlines() if re.search("left out|ignored|dropped|refused|not read", line))


def last_error(log: str) -> str:
    return next((line for line in reversed(log.splitlines()) if re.match(r"\w+(\.\w+)*(Error|Exception)", line)), "")


@pytest.mark.long
@pytest.mark.parametrize("defense", DEFENSES)
def test_the_server_stands_the_whole_corpus(defense: str, tmp_path: Path) -> None:
    left, problems = corpus(defense), {}
    for start in range(STARTS):
        folder = tmp_path / str(start)
        played, grown = play_all(folder, left, DEFENSES[defense])
        log = (folder / "server.log").read_text(errors="replace")
        found = {case.name: problem(defense, each, log) for case, each in zip(left, played, strict=False)}
        problems.update({name: what for name, what in found.items() if what is not None})
        if (folder / "the-server-was-mine").exists():
            problems["a command"] = "the server ran it"
        if re.search("[\x00-\x08\x0b-\x1f\x7f]", log):
            problems["terminal codes"] = "they reached the log"
        if longest := [line[:100] for line in log.splitlines() if len(line) > 5000]:
            problems["long lines"] = f"{len(longest)} of them reached the log, the first begins with {longest[0]}"
        if len(played) == len(left):
            assert grown < MEGABYTES
            left = []
            break
        left = left[len(played) :]
    assert not problems, "\n".join(f"{name}: {what}" for name, what in problems.items())
    assert not left
