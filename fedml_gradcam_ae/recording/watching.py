"""Detectors that judge each round without acting, so that several are compared on the same uploads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fedml_gradcam_ae.contract.interfaces import Judge, timed_judge
from fedml_gradcam_ae.contract.round import Round, TooFewUploads, Verdict

_watchers: dict[str, Judge] = {}


@contextmanager
def watching(detectors: Mapping[str, Judge]) -> Iterator[None]:
    """Return a context manager in which these defenses judge every round without acting.

    Args:
        detectors: instances by the name under which the report of a round shows their verdicts. Each instance keeps
            its own state over rounds (votes, histories), as if it ran alone.
    """
    before = dict(_watchers)
    _watchers.update(detectors)
    try:
        yield
    finally:
        _watchers.clear()
        _watchers.update(before)


def any_detector_watches() -> bool:
    """Return whether any detector watches, so that rounds are judged even if no defense is on."""
    return bool(_watchers)


def watch(round: Round) -> dict[str, Verdict]:
    """Return the verdict of each watching detector on a round, by name of the detector.

    Args:
        round: the round with the uploads that passed the gate; without any upload the result is empty.
    """
    return {name: _judge(detector, round) for name, detector in _watchers.items()} if round.uploads else {}


def _judge(detector: Judge, round: Round) -> Verdict:
    """Return a detector's verdict; with too few uploads for its guarantee, one that keeps the global model."""
    try:
        return timed_judge(detector, round)
    except TooFewUploads:
        clients = len(round.uploads)
        return Verdict(
            flagged=[False] * clients, excluded=[True] * clients, weights=[0.0] * clients, seconds={"total": 0.0}
        )
