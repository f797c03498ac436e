"""Which of a benchmark's figures answer which of the paper's."""

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
# What a claim's condition may say of an attack, and how hard the attacker searches, of which the paper says nothing.
FREE = ("type", "attackers", "poisoning_ratio", "steps", "images")


@dataclass(frozen=True)
class Beside:
    """A claim and what was measured under its condition.

    Attributes:
        claim: of the paper.
        setting, attack, defense: titles of the runs; empty if no finished run has the claim's condition.
        on: model and data of these runs, which stand in for the paper's where they differ.
        how: whether the method defended these runs or watched undefended ones.
        found: by metric, as in the claim; None where it is not defined, as precision is where nobody is accused.
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
        """How and where, as far as the claim leaves it open."""
        if self.how is None:
            return "not run"
        asked = f"{self.claim.model}, {self.claim.data}"
        more = [self.setting] if self.setting and not self.claim.partition else []
        more += [self.on] if self.on != asked else []
        where = f" ({'; '.join(more)})" if more else ""
        return f"ours, {self.how}{where}"


def beside(results: Results, observations: Observations) -> list[Beside]:
    """One entry for each claim of the places that the configuration names, each setting, and each way of measuring."""
    return [found for claim in claims() if claim.place in results.paper for found in _of(claim, results, observations)]


def _of(claim: Claim, results: Results, observations: Observations) -> Iterator[Beside]:
    titles = observations.titles
    found = False
    groups: dict[tuple[str, str], list[RunResult]] = {}
    for run in _candidates(claim, results.finished):
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
    """How this method was measured: as the defense, and as a watcher of the undefended run."""
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
    """Whether it is a method as published: gradcam_ae's default profile is another one than the paper's."""
    return defense["type"] != "gradcam_ae" or defense.get("profile") == "paper"


def _candidates(claim: Claim, runs: Sequence[RunResult]) -> list[RunResult]:
    """Runs under the claim's condition; on its model and data, or where there are none, on whatever there is."""
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
    """Of the clients that attack."""
    asked = attack.get("attackers", 1)
    if isinstance(asked, list):
        return len(asked) / clients
    return asked if isinstance(asked, float) else asked / clients


def _otherwise_as_by_default(attack: Mapping[str, Any]) -> bool:
    fields = registry.attacks()[attack["type"]].Settings.model_fields
    return all(fields[key].default == value for key, value in attack.items() if key not in FREE)
