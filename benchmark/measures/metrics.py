"""The metrics. A decorated function adds one: it appears in every table and in the report.

Malicious clients are the positive class. The formulas are scikit-learn's. Where a metric is not defined, it is None and
means leave it out; it is never 0 in place of a missing value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
)

if TYPE_CHECKING:
    from benchmark.measures.judgments import Judgment
    from benchmark.measures.results import RunResult

Better = Literal["higher", "lower"]
Function = Callable[..., float | None]
# The attack success rate that counts as successful, for the durability.
HALF = 0.5
# Whether each client of a round is malicious, (clients,).
Truth = Sequence[bool]


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes:
        name: shown in tables.
        unit: "fraction" (never per cent), "s", "MiB", "rounds" or the range of the values.
        better: whether higher or lower values are better.
        compute: the function; the first line of its docstring explains the metric in the report.
        against_clean: whether the function also takes the run without attack of the same setting, defense and seed.
        targeted: whether it is defined under targeted attacks only. Tables with a column for each metric leave such a
            column out where no run has a value.
    """

    name: str
    unit: str
    better: Better
    compute: Function
    against_clean: bool = False
    targeted: bool = False

    @property
    def heading(self) -> str:
        """Return the name with the unit, for the head of a column."""
        return f"{self.name} ({self.unit})"

    @property
    def explanation(self) -> str:
        """Return the explanation that the report's list of metrics shows."""
        return (self.compute.__doc__ or "").strip().split("\n")[0]


# The registered metrics by name, one table for each kind of input; filled by the decorators below.
OF_DECISIONS: dict[str, Metric] = {}
OF_SCORES: dict[str, Metric] = {}
OF_DETECTORS: dict[str, Metric] = {}
OF_RUNS: dict[str, Metric] = {}


def _registrar(table: dict[str, Metric], **about: Any) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        table[about["name"]] = Metric(compute=function, **about)
        return function

    return register


def of_decisions(name: str, unit: str, better: Better) -> Callable[[Function], Function]:
    """Register a function of (truth, accused), two lists of bool over the clients of a round.

    Args:
        name: of the metric.
        unit: "fraction", "s", "MiB" or the range of the values.
        better: whether higher or lower values are better.

    Returns:
        A decorator that registers a function and returns it unchanged.
    """
    return _registrar(OF_DECISIONS, name=name, unit=unit, better=better)


def of_scores(name: str, unit: str, better: Better) -> Callable[[Function], Function]:
    """Register a function of (truth, scores) over the clients of a round.

    The function gets ranks in place of the scores, so that it can use their order only.

    Args:
        name: of the metric.
        unit: "fraction", "s", "MiB" or the range of the values.
        better: whether higher or lower values are better.

    Returns:
        A decorator that registers a function and returns it unchanged.
    """
    return _registrar(OF_SCORES, name=name, unit=unit, better=better)


def of_detectors(name: str, unit: str, better: Better) -> Callable[[Function], Function]:
    """Register a function of all judgments of one detector in one run.

    Args:
        name: of the metric.
        unit: "fraction", "s", "MiB" or the range of the values.
        better: whether higher or lower values are better.

    Returns:
        A decorator that registers a function and returns it unchanged.
    """
    return _registrar(OF_DETECTORS, name=name, unit=unit, better=better)


def of_runs(
    name: str, unit: str, better: Better, against_clean: bool = False, targeted: bool = False
) -> Callable[[Function], Function]:
    """Register a function of a finished run.

    Args:
        name: of the metric.
        unit: "fraction", "s", "MiB", "rounds" or the range of the values.
        better: whether higher or lower values are better.
        against_clean: whether the function also takes the run without attack of the same setting, defense and seed.
        targeted: whether it is defined under targeted attacks only.

    Returns:
        A decorator that registers a function and returns it unchanged.
    """
    about = {"name": name, "unit": unit, "better": better, "against_clean": against_clean, "targeted": targeted}
    return _registrar(OF_RUNS, **about)


def _both(truth: Truth) -> bool:
    return any(truth) and not all(truth)


@of_decisions("recall", "fraction", "higher")
def recall(truth: Truth, accused: Truth) -> float | None:
    """Share of the attackers that are accused; undefined without attackers.

    Args:
        truth: whether each client is malicious, (clients,).
        accused: whether each client is accused or left out, (clients,).

    Returns:
        The value; None where it is not defined.
    """
    return recall_score(truth, accused) if any(truth) else None


@of_decisions("precision", "fraction", "higher")
def precision(truth: Truth, accused: Truth) -> float | None:
    """Share of the accused that are attackers; undefined without attackers and where no client is accused.

    Args:
        truth: whether each client is malicious, (clients,).
        accused: whether each client is accused or left out, (clients,).

    Returns:
        The value; None where it is not defined.
    """
    return precision_score(truth, accused) if any(truth) and any(accused) else None


@of_decisions("FPR", "fraction", "lower")
def false_positive_rate(truth: Truth, accused: Truth) -> float | None:
    """False-positive rate: share of the benign clients that are accused.

    Args:
        truth: whether each client is malicious, (clients,).
        accused: whether each client is accused or left out, (clients,).

    Returns:
        The value; None without benign clients.
    """
    if all(truth):
        return None
    kept, taken = confusion_matrix(truth, accused, labels=[False, True])[0]
    return taken / (kept + taken)  # type: ignore[no-any-return]


@of_decisions("ACC", "fraction", "higher")
def detection_accuracy(truth: Truth, accused: Truth) -> float | None:
    """Share of the clients, attackers and benign ones together, that are classified correctly.

    Args:
        truth: whether each client is malicious, (clients,).
        accused: whether each client is accused or left out, (clients,).
    """
    return accuracy_score(truth, accused)  # type: ignore[no-any-return]


@of_decisions("F1", "fraction", "higher")
def f1(truth: Truth, accused: Truth) -> float | None:
    """Harmonic mean of precision and recall, 0 where attackers are missed and no client is accused.

    Args:
        truth: whether each client is malicious, (clients,).
        accused: whether each client is accused or left out, (clients,).

    Returns:
        The value; None without attackers.
    """
    return f1_score(truth, accused) if any(truth) else None


@of_decisions("MCC", "-1 to 1", "higher")
def matthews(truth: Truth, accused: Truth) -> float | None:
    """Matthews correlation of accused and malicious; undefined unless there are both kinds of clients and answers.

    Args:
        truth: whether each client is malicious, (clients,).
        accused: whether each client is accused or left out, (clients,).

    Returns:
        The value in [-1, 1]; None where it is not defined.
    """
    return matthews_corrcoef(truth, accused) if _both(truth) and _both(accused) else None


@of_decisions("balanced accuracy", "fraction", "higher")
def balanced_accuracy(truth: Truth, accused: Truth) -> float | None:
    """(recall + 1 - FPR) / 2, which the GradCAM-AE paper calls AUC; 0.5 for random decisions.

    Args:
        truth: whether each client is malicious, (clients,).
        accused: whether each client is accused or left out, (clients,).

    Returns:
        The value; None unless there are both attackers and benign clients.
    """
    return balanced_accuracy_score(truth, accused) if _both(truth) else None


@of_scores("AUROC", "fraction", "higher")
def auroc(truth: Truth, scores: Sequence[float]) -> float | None:
    """Probability that a random attacker of a round scores higher than a random benign client; 0.5 for random scores.

    Args:
        truth: whether each client is malicious, (clients,).
        scores: ranks of the clients' suspicion, (clients,).

    Returns:
        The value; None unless there are both attackers and benign clients.
    """
    return roc_auc_score(truth, scores) if _both(truth) else None


@of_scores("AUPRC", "fraction", "higher")
def auprc(truth: Truth, scores: Sequence[float]) -> float | None:
    """Average precision of the scores; for random scores it is the share of attackers.

    Args:
        truth: whether each client is malicious, (clients,).
        scores: ranks of the clients' suspicion, (clients,).

    Returns:
        The value; None unless there are both attackers and benign clients.
    """
    return average_precision_score(truth, scores) if _both(truth) else None


@of_detectors("seconds per round", "s", "lower")
def seconds_per_round(judgments: Sequence[Judgment]) -> float | None:
    """Time that the detector takes to judge a round, mean over rounds.

    Args:
        judgments: all rounds of one detector in one run.

    Returns:
        Seconds; None if no time was recorded.
    """
    seconds = [judgment.seconds["total"] for judgment in judgments if "total" in judgment.seconds]
    return fmean(seconds) if seconds else None


@of_runs("accuracy", "fraction", "higher")
def accuracy(run: RunResult) -> float | None:
    """Test accuracy of the global model after the last tested round.

    Args:
        run: a finished run.

    Returns:
        A fraction; None if no round was tested.
    """
    return run.tests[-1].accuracy if run.tests else None


@of_runs("worst-class accuracy", "fraction", "higher")
def worst_class_accuracy(run: RunResult) -> float | None:
    """Lowest test accuracy of a class after the last tested round.

    Args:
        run: a finished run.

    Returns:
        A fraction; None if no round was tested.
    """
    known = [value for value in run.tests[-1].class_accuracy if value is not None] if run.tests else []
    return min(known, default=None)


@of_runs("attack impact", "fraction", "lower", against_clean=True)
def attack_impact(run: RunResult, clean: RunResult) -> float | None:
    """Accuracy lost to the attack: without attack minus with it, for the same defense and seed.

    Args:
        run: a finished run with an attack.
        clean: the run without attack of the same setting, defense and seed.

    Returns:
        A fraction; None if one of them has no tested round.
    """
    without, with_attack = accuracy(clean), accuracy(run)
    return None if without is None or with_attack is None else without - with_attack


@of_runs("attack success rate", "fraction", "lower", targeted=True)
def attack_success(run: RunResult) -> float | None:
    """Share of the test images with the trigger that the last tested model classifies as the attack wants.

    Images of the target class do not count, nor, under an attack on one class, those of other classes.

    Args:
        run: a finished run.

    Returns:
        A fraction; None without a targeted attack, or if no round was tested.
    """
    return run.tests[-1].success if run.tests else None


@of_runs("source recall", "fraction", "higher", targeted=True)
def source_recall(run: RunResult) -> float | None:
    """Recall of the class whose labels are flipped, after the last tested round.

    Args:
        run: a finished run.

    Returns:
        A fraction; None unless the attack is `label_flip` with a `source`, or if no round was tested.
    """
    source = run.attack.get("source") if run.attack.get("type") == "label_flip" else None
    return run.tests[-1].class_accuracy[source] if source is not None and run.tests else None


@of_runs("durability", "rounds", "lower", targeted=True)
def durability(run: RunResult) -> float | None:
    """Rounds from the last one with an attack until the attack success rate is below one half.

    Args:
        run: a finished run.

    Returns:
        Rounds; 0 if the rate is below one half after the last round with an attack already. None if the attack has no
        last round, or if the rate was never at least one half until then, or never falls below it.
    """
    last = run.attack.get("last_round")
    rates = [(test.round, test.success) for test in run.tests if test.success is not None]
    if last is None or all(rate < HALF for round, rate in rates if round <= last):
        return None
    return next((round - last for round, rate in rates if round >= last and rate < HALF), None)


@of_runs("protected accuracy", "fraction", "higher", targeted=True)
def protected_accuracy(run: RunResult) -> float | None:
    """Accuracy x (1 - attack success rate): low if the attack succeeds, and low if the defense ruins the model.

    Args:
        run: a finished run.

    Returns:
        A fraction; None without a targeted attack, or if no round was tested.
    """
    reached, success = accuracy(run), attack_success(run)
    return None if reached is None or success is None else reached * (1 - success)


@of_runs("whole run", "s", "lower")
def run_seconds(run: RunResult) -> float | None:
    """Wall-clock time of the simulation, training included.

    Args:
        run: a finished run.

    Returns:
        Seconds; None if they were not recorded.
    """
    return run.seconds


@of_runs("peak memory", "MiB", "lower")
def peak_memory(run: RunResult) -> float | None:
    """Peak memory of the run's process.

    Args:
        run: a finished run.

    Returns:
        MiB; None if it was not recorded.
    """
    return None if run.peak_memory is None else run.peak_memory / 2**20


def of_one_decision(truth: Truth, accused: Truth) -> Mapping[str, float | None]:
    """Compute every metric of one round's decisions.

    Args:
        truth: whether each client is malicious, (clients,).
        accused: whether each client is accused or left out, (clients,).

    Returns:
        The value of each metric of `OF_DECISIONS` by name; None where it is not defined.
    """
    pairs = list(zip(truth, accused, strict=True))
    counts = tuple(pairs.count(kind) for kind in _KINDS)
    return {name: _of_counts(metric.compute, counts) for name, metric in OF_DECISIONS.items()}


# The four cells of a confusion matrix: (malicious, accused).
_KINDS = ((True, True), (True, False), (False, True), (False, False))


@cache
def _of_counts(function: Function, counts: tuple[int, ...]) -> float | None:
    """Compute a metric from the counts of each of `_KINDS`.

    Metrics of decisions do not depend on the order of the clients, so that equal counts are computed once:
    scikit-learn's input checks are slow.
    """
    pairs = [kind for kind, count in zip(_KINDS, counts, strict=True) for _ in range(count)]
    found = function([truth for truth, _ in pairs], [accused for _, accused in pairs]) if pairs else None
    return None if found is None else float(found)


def of_one_ranking(truth: Truth, scores: Sequence[float]) -> Mapping[str, float | None]:
    """Compute every metric of one round's scores.

    Args:
        truth: whether each client is malicious, (clients,).
        scores: suspicion of each client, (clients,); may be infinite. Clients with NaN have no score and are left out.

    Returns:
        The value of each metric of `OF_SCORES` by name; None where it is not defined.
    """
    values = np.asarray(scores, dtype=float)
    judged = ~np.isnan(values)
    # Ranks in place of the values, since scikit-learn rejects infinity.
    ranks = np.unique(values[judged], return_inverse=True)[1]
    ties = tuple(sorted(zip(ranks.tolist(), np.asarray(truth)[judged].tolist(), strict=True)))
    return {name: _of_ranks(metric.compute, ties) for name, metric in OF_SCORES.items()}


@lru_cache(maxsize=2**16)
def _of_ranks(function: Function, ties: tuple[tuple[int, bool], ...]) -> float | None:
    found = function([malicious for _, malicious in ties], [rank for rank, _ in ties]) if ties else None
    return None if found is None else float(found)
