"""Matching of a benchmark's results with the paper's claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmark.measures import metrics
from benchmark.measures.intervals import BySeed, Estimate, difference, estimate
from benchmark.measures.observations import Observations
from benchmark.measures.results import Results, RunResult
from benchmark.measures.titles import UNDEFENDED
from benchmark.paper.claims import Claim, claims
from fedml_gradcam_ae.contract import registry

How = Literal["acting", "watching"]
# Attack keys that are not compared with their defaults. A claim's condition covers the first three. The paper does not
# report `steps` and `images`, the effort of the attacker's search.
FREE = ("type", "attackers", "poisoning_ratio", "steps", "images")


@dataclass(frozen=True)
class Beside:
    """A claim and the values that were measured under its condition.

    Attributes:
        claim: of the paper.
        setting, attack, defense: titles of the runs; empty if no finished run meets the claim's condition.
        on: model and data of these runs, which may differ from the paper's.
        how: "acting" if the method defended these runs, "watching" if it watched undefended ones, None if not run.
        found: the measured value by metric, for each metric of the claim; None where it is not defined, such as
            precision if no client is accused.
    """

    claim: Claim
    setting: str
    attack: str
    defense: str
    on: str
    how: How | None
    found: Mapping[str, Estimate | None]

    @property
    def title(self) -> str:
        """Return the title of the row: how the method was measured, and what the claim leaves open.

        This can be the setting, and model and data where they differ from the paper's.
        """
        if self.how is None:
            return "not run"
        asked = f"{self.claim.model}, {self.claim.data}"
        more = [self.setting] if self.setting and not self.claim.partition else []
        more += [self.on] if self.on != asked else []
        where = f" ({'; '.join(more)})" if more else ""
        return f"ours, {self.how}{where}"


def beside(results: Results, observations: Observations) -> list[Beside]:
    """Return the measured values for the claims that the configuration names.

    Args:
        results: the benchmark; its `paper` names tables and figures.
        observations: its measured values.

    Returns:
        One entry for each claim, setting and way of measuring (acting or watching); for a claim without runs one empty
        entry.
    """
    return [found for claim in claims() if claim.place in results.paper for found in _of(claim, results, observations)]


def _of(claim: Claim, results: Results, observations: Observations) -> Iterator[Beside]:
    titles = observations.titles
    found = False
    groups: dict[tuple[str, str], list[RunResult]] = {}
    for run in _candidates(claim, results.judged):
        groups.setdefault((titles.setting(run), titles.attack(run)), []).append(run)
    for (setting, attack), runs in groups.items():
        on = f"{runs[0].model['name']}, {runs[0].data['name']}"
        for how, defense, get in _ways(claim, setting, attack, runs, observations):
            values = {name: get(name) for name in claim.values}
            if any(values.values()) or how == "acting":
                found = True
                yield Beside(claim, setting, attack, defense, on, how, values)
    if not found:
        yield Beside(claim, "", "", "", "", None, dict.fromkeys(claim.values))


def _ways(
    claim: Claim, setting: str, attack: str, runs: Sequence[RunResult], observations: Observations
) -> Iterator[tuple[How, str, Callable[[str], Estimate | None]]]:
    """Yield each way in which the claim's method was measured: as the defense, and as a watcher of undefended runs.

    Yields:
        How, the title of the defense or the name of the watcher, and a function from a metric's name to its estimate.
    """
    titles = observations.titles
    by_type: dict[str, str] = {}
    for run in runs:
        if _published(run.defense):
            by_type.setdefault(str(run.defense["type"]), titles.defense(run))

    def run_figure(defense: str, name: str) -> BySeed:
        role = observations.of_run if name in metrics.OF_RUNS else observations.of_defense
        return role(setting, attack, defense, name)

    if claim.minus is not None:
        if claim.method in by_type and claim.minus in by_type:
            one, other = by_type[claim.method], by_type[claim.minus]
            yield "acting", one, lambda name: difference(run_figure(one, name), run_figure(other, name))
        return
    if claim.method in by_type:
        acting = by_type[claim.method]
        yield "acting", acting, lambda name: estimate(run_figure(acting, name))
    watchers = {e["name"] for run in runs for e in run.watch if e["type"] == claim.method and _published(e)}
    for watcher in sorted(watchers):
        yield (
            "watching",
            watcher,
            lambda name, watcher=watcher: estimate(  # type: ignore[misc]
                observations.of_watcher(setting, attack, UNDEFENDED, watcher, name)
            ),
        )


def _published(defense: Mapping[str, Any]) -> bool:
    """Return whether the settings are the published method's: gradcam_ae's default profile is not the paper's."""
    return defense["type"] != "gradcam_ae" or defense.get("profile") == "paper"


def _candidates(claim: Claim, runs: Sequence[RunResult]) -> list[RunResult]:
    """Return the runs that meet the claim's condition.

    If the benchmark has the claim's model and data, only runs on them count; otherwise runs on any model and data do.
    """
    fitting = [run for run in runs if _fits(claim, run)]
    same = [run for run in fitting if _same(claim.model, run.model) and _same(claim.data, run.data)]
    exact = any(_same(claim.model, run.model) and _same(claim.data, run.data) for run in runs)
    return same if exact else fitting


def _same(name: str | None, section: Mapping[str, Any]) -> bool:
    return name is None or section["name"] == name


def _fits(claim: Claim, run: RunResult) -> bool:
    clients = run.federation["clients"]
    return (
        clients == claim.clients
        and run.data.get("partition") == (claim.partition or run.data.get("partition"))
        and (claim.beta is None or run.data.get("beta") == claim.beta)
        and run.attack["type"] == claim.attack
        and abs(_share(run.attack, clients) - claim.attackers) < 1e-9
        and (claim.poisoning_ratio is None or run.attack.get("poisoning_ratio", 1.0) == claim.poisoning_ratio)
        and _otherwise_as_by_default(run.attack)
    )


def _share(attack: Mapping[str, Any], clients: int) -> float:
    """Return the fraction of the clients that attack."""
    asked = attack.get("attackers", 1)
    if isinstance(asked, list):
        return len(asked) / clients
    return asked if isinstance(asked, float) else asked / clients


def _otherwise_as_by_default(attack: Mapping[str, Any]) -> bool:
    fields = registry.attacks()[attack["type"]].Settings.model_fields
    return all(fields[key].default == value for key, value in attack.items() if key not in FREE)
