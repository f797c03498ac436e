"""Detectors that judge a round beside the defense that acts: detection compared on the very same uploads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fedml_gradcam_ae.contract.interfaces import Judge, timed_judge
from fedml_gradcam_ae.contract.round import Round, TooFewUploads, Verdict

_watchers: dict[str, Judge] = {}


@contextmanager
def watching(detectors: Mapping[str, Judge]) -> Iterator[None]:
    """Let these defenses judge every round while the block runs, without acting.

    Args:
        detectors: instances by the name under which the report of a round shows their verdicts. Each remembers its
            own votes and histories, as if it had been on its own.
    """
    before = dict(_watchers)
    _watchers.update(detectors)
    try:
        yield
    finally:
        _watchers.clear()
        _watchers.update(before)


def anybody_watches() -> bool:
    """Whether a round is to be judged even if no defense is on."""
    return bool(_watchers)


def watch(round: Round) -> dict[str, Verdict]:
    """What each of them says of a round of usable uploads; nothing where no upload is usable."""
    return {name: _judge(detector, round) for name, detector in _watchers.items()} if round.uploads else {}


def _judge(detector: Judge, round: Round) -> Verdict:
    """Its verdict; with too few uploads for its guarantee it would keep the global model."""
    try:
        return timed_judge(detector, round)
    except TooFewUploads:
        clients = len(round.uploads)
        return Verdict(
            flagged=[False] * clients, excluded=[True] * clients, weights=[0.0] * clients, seconds={"total": 0.0}
        )
