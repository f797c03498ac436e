"""Every figure of every finished run in one flat list; tables and report group it as they need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmark.measures import metrics
from benchmark.measures.detector_figures import Decision, at_votes, averages, deciding, score_averages
from benchmark.measures.intervals import BySeed, Estimate, Measurement, estimate
from benchmark.measures.judgments import Judgment
from benchmark.measures.metrics import Metric
from benchmark.measures.results import Results, RunResult
from benchmark.measures.titles import NO_ATTACK, Titles

Role = Literal["run", "acting", "watched"]


@dataclass(frozen=True)
class Key:
    """What is averaged over seeds.

    Attributes:
        setting, attack, defense: titles; see `titles.Titles`.
        role: whether this is a figure of the run, of the defense that acted in it, or of a detector that watched.
        detector: the watcher's name, or the defense's title again; empty for figures of the run.
        metric: its name.
    """

    setting: str
    attack: str
    defense: str
    role: Role
    detector: str
    metric: str


@dataclass(frozen=True)
class Observation:
    """One figure of one run; detection is the mean over its votes."""

    key: Key
    seed: int
    measurement: Measurement


class Observations:
    """All of a benchmark, by key and seed."""

    def __init__(self, results: Results) -> None:
        self.titles = Titles(results)
        self._decisions = decisions(results, self.titles)
        self._found: dict[Key, dict[int, Measurement]] = {}
        for one in observe(results, self.titles, self._decisions):
            self._found.setdefault(one.key, {})[one.seed] = one.measurement

    def decision(self, role: Role, detector: str) -> Decision:
        """Which of a detector's two decisions its figures are about."""
        return self._decisions[role, detector]

    def accuses(self, role: Role, detector: str) -> bool:
        """Whether whom it accuses is counted, instead of whom the aggregation leaves out."""
        return self._decisions.get((role, detector)) == "accused"

    def keys(self) -> Iterable[Key]:
        """In the order of the runs."""
        return self._found.keys()

    def by_seed(self, key: Key) -> BySeed:
        """Empty where nothing was measured."""
        return self._found.get(key, {})

    def estimate(self, key: Key) -> Estimate | None:
        """Over its seeds; None where nothing was measured."""
        return estimate(self.by_seed(key))

    def of_run(self, setting: str, attack: str, defense: str, metric: str) -> BySeed:
        """A figure of the run itself."""
        return self.by_seed(Key(setting, attack, defense, "run", "", metric))

    def of_defense(self, setting: str, attack: str, defense: str, metric: str) -> BySeed:
        """A figure of the defense that acts."""
        return self.by_seed(Key(setting, attack, defense, "acting", defense, metric))

    def of_watcher(self, setting: str, attack: str, defense: str, detector: str, metric: str) -> BySeed:
        """A figure of a detector beside the defense that acts."""
        return self.by_seed(Key(setting, attack, defense, "watched", detector, metric))


def decisions(results: Results, titles: Titles) -> dict[tuple[Role, str], Decision]:
    """For each detector the same in all of its runs: what kind of rule it is, all of its rounds say together."""
    judgments: dict[tuple[Role, str], list[Judgment]] = {}
    for run in results.finished:
        for role, detector, said in detectors(run, titles):
            judgments.setdefault((role, detector), []).extend(said)
    return {name: deciding(said) for name, said in judgments.items()}


def observe(results: Results, titles: Titles, decisions: Mapping[tuple[Role, str], Decision]) -> Iterator[Observation]:
    """Whatever is defined in the finished runs."""
    clean = {
        (titles.setting(run), titles.defense(run), run.seed): run
        for run in results.finished
        if titles.attack(run) == NO_ATTACK
    }
    for run in results.finished:
        place = titles.place(run)

        def one(role: Role, detector: str, metric: Metric, value: float, *others: str) -> Observation:
            key = Key(*place, role, detector, metric.name)  # noqa: B023 - called within the iteration
            return Observation(key, run.seed, Measurement(value, (run.folder, *others)))  # noqa: B023

        baseline = clean.get((place[0], place[2], run.seed))
        for metric in metrics.OF_RUNS.values():
            value, others = _of_run(metric, run, baseline)
            if value is not None:
                yield one("run", "", metric, value, *others)
        for role, detector, judgments in detectors(run, titles):
            for metric, value in _of_detector(judgments, decisions[role, detector], results.vote_every):
                yield one(role, detector, metric, value)


def detectors(run: RunResult, titles: Titles) -> Iterator[tuple[Role, str, Sequence[Judgment]]]:
    """The defense that acted, if any, and those that watched."""
    if run.acting:
        yield "acting", titles.defense(run), run.acting
    for name, judgments in run.watched.items():
        yield "watched", name, judgments


def _of_run(metric: Metric, run: RunResult, clean: RunResult | None) -> tuple[float | None, tuple[str, ...]]:
    if not metric.against_clean:
        return metric.compute(run), ()
    if clean is None or clean is run:
        return None, ()
    return metric.compute(run, clean), (clean.folder,)


def _of_detector(judgments: Sequence[Judgment], decision: Decision, every: int) -> Iterator[tuple[Metric, float]]:
    votes = at_votes(judgments, every)
    decisions = averages(votes, decision)
    values: Mapping[Metric, float | None] = {
        **{metric: decisions[name] for name, metric in metrics.OF_DECISIONS.items()},
        **dict(zip(metrics.OF_SCORES.values(), score_averages(votes).values(), strict=True)),
        **{metric: metric.compute(judgments) for metric in metrics.OF_DETECTORS.values()},
    }
    return ((metric, value) for metric, value in values.items() if value is not None)
