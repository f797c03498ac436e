"""All measured values of all finished runs in one flat list, which tables and report group as they need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
    """The identity of a measured value, apart from its seed: values with equal keys are averaged.

    Attributes:
        setting, attack, defense: titles; see `titles.Titles`.
        role: "run" for a value of the whole run, "acting" for the defense that acted in it, "watched" for a detector
            that only watched.
        detector: the watcher's name, or the title of the acting defense; empty for values of the run.
        metric: the name of the metric.
    """

    setting: str
    attack: str
    defense: str
    role: Role
    detector: str
    metric: str


@dataclass(frozen=True)
class Observation:
    """One measured value of one run.

    Values of detection metrics are means over the run's votes.
    """

    key: Key
    seed: int
    measurement: Measurement


class Observations:
    """The measured values of a whole benchmark, by key and seed.

    Args:
        results: the benchmark.
    """

    def __init__(self, results: Results) -> None:
        self.titles = Titles(results)
        self._decisions = decisions(results, self.titles)
        self._found: dict[Key, dict[int, Measurement]] = {}
        self._chosen_on: dict[Key, dict[int, Measurement]] = {}
        for one in observe(results, self.titles, self._decisions):
            kept = self._chosen_on if one.seed in results.validation_seeds else self._found
            kept.setdefault(one.key, {})[one.seed] = one.measurement

    def decision(self, role: Role, detector: str) -> Decision:
        """Return which decision of a detector its detection metrics are computed from.

        Args:
            role: "acting" or "watched".
            detector: its name.

        Raises:
            KeyError: if the detector judged in no finished run.
        """
        return self._decisions[role, detector]

    def accuses(self, role: Role, detector: str) -> bool:
        """Return whether a detector's metrics count the clients that it accuses, instead of those that are left out.

        Args:
            role: "acting" or "watched".
            detector: its name.
        """
        return self._decisions.get((role, detector)) == "accused"

    def keys(self) -> Iterable[Key]:
        """Return all keys, in the order of the runs."""
        return self._found.keys()

    @cached_property
    def measured(self) -> set[str]:
        """The names of the metrics that have a value in some run."""
        return {key.metric for key in self._found}

    def by_seed(self, key: Key) -> BySeed:
        """Return the measured values of a key by seed.

        Args:
            key: what was measured.

        Returns:
            The values; an empty mapping if there are none.
        """
        return self._found.get(key, {})

    def on_validation(self, key: Key) -> BySeed:
        """Return the measured values of a key on the seeds that settings are chosen on, by seed.

        Args:
            key: what was measured.
        """
        return self._chosen_on.get(key, {})

    def estimate(self, key: Key) -> Estimate | None:
        """Return the mean and interval of a key over its seeds.

        Args:
            key: what was measured.

        Returns:
            The estimate; None if nothing was measured.
        """
        return estimate(self.by_seed(key))

    def of_run(self, setting: str, attack: str, defense: str, metric: str) -> BySeed:
        """Return a metric of the run itself by seed.

        Args:
            setting, attack, defense: titles.
            metric: its name.
        """
        return self.by_seed(Key(setting, attack, defense, "run", "", metric))

    def of_defense(self, setting: str, attack: str, defense: str, metric: str) -> BySeed:
        """Return a metric of the acting defense by seed.

        Args:
            setting, attack, defense: titles.
            metric: its name.
        """
        return self.by_seed(Key(setting, attack, defense, "acting", defense, metric))

    def of_watcher(self, setting: str, attack: str, defense: str, detector: str, metric: str) -> BySeed:
        """Return a metric of a detector that watched, by seed.

        Args:
            setting, attack: titles.
            defense: the title of the defense that acted in these runs.
            detector: the watcher's name.
            metric: its name.
        """
        return self.by_seed(Key(setting, attack, defense, "watched", detector, metric))


def decisions(results: Results, titles: Titles) -> dict[tuple[Role, str], Decision]:
    """Return for each detector which of its decisions is measured.

    The decision is chosen from the rounds of all of a detector's runs together, so that it is the same in all of them.

    Args:
        results: the benchmark.
        titles: the names of its parts.

    Returns:
        The decision by role and detector name.
    """
    judgments: dict[tuple[Role, str], list[Judgment]] = {}
    for run in results.finished:
        for role, detector, said in detectors(run, titles):
            judgments.setdefault((role, detector), []).extend(said)
    return {name: deciding(said) for name, said in judgments.items()}


def observe(results: Results, titles: Titles, decisions: Mapping[tuple[Role, str], Decision]) -> Iterator[Observation]:
    """Yield every metric that is defined in a finished run.

    Args:
        results: the benchmark.
        titles: the names of its parts.
        decisions: the measured decision by role and detector name; see `decisions`.

    Yields:
        One observation per run, detector and metric.
    """
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
    """Yield the defense that acted in a run, if there is one, and the detectors that watched.

    Args:
        run: a finished run.
        titles: the names of the benchmark's parts.

    Yields:
        Role, name and the judgments of all rounds.
    """
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
