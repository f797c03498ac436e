"""The recommendation of the report: which defense to use, against which attacks, at what cost.

Attacks that ruin accuracy and targeted ones, such as backdoors, are answered apart: what counts is the accuracy under
the former, and accuracy x (1 - attack success rate) under the latter, since a model that is ruined resists every
backdoor.

A defense is judged by its *worst case*, since the defender does not choose the attack: in each seed the lowest value
over all attacks, then the mean over the seeds that all compared defenses share. Two defenses are distinguishable if
their difference on the same seeds is positive with 95 % confidence by Student's t (`intervals.surely_positive`).
Defenses that are not distinguishable from the best one are named together with it.

Of a defense whose settings were swept, one combination is a candidate: the one with the best worst case on the
validation seeds, which no other number comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmark.measures.intervals import (
    BySeed,
    Estimate,
    Measurement,
    difference,
    differences,
    estimate,
    surely_positive,
)
from benchmark.measures.observations import Key, Observations
from benchmark.measures.results import Results, RunResult
from benchmark.measures.titles import NO_ATTACK, UNDEFENDED

# The minimum number of seeds for a recommendation.
ENOUGH_SEEDS = 3
Attackers = int | float
SUCCESS = "attack success rate"


@dataclass(frozen=True)
class Goal:
    """What attacks are after, and the figure that says how well a defense prevents it.

    Attributes:
        title: of these attacks.
        figure: the name of the figure, of which higher is better (fraction).
        metric: the metric that it is.
        harm: the metric, and its name, that says what an attack does without a defense (fraction).
    """

    title: str
    figure: str
    metric: str
    harm: tuple[str, str]


UNTARGETED = Goal("Attacks on the accuracy", "accuracy", "accuracy", ("attack impact", "accuracy lost"))
TARGETED = Goal("Targeted attacks", "accuracy x (1 - attack success rate)", "protected accuracy", (SUCCESS, SUCCESS))


@dataclass(frozen=True)
class Candidate:
    """The results of one defense against all attacks of a setting.

    Attributes:
        defense: its title.
        worst: its figure in the worst case (fraction).
        worst_attack: the attack that leaves the lowest mean of it.
        price: accuracy lost without attack: undefended minus defended, on the same seeds (fraction).
        false_alarms: false-positive rate without attack (fraction).
        seconds: time of the defense per round (s); per seed, the mean over the attacks, no attack included.
        among_best: whether it is the best defense or not distinguishable from it.
    """

    defense: str
    worst: Estimate
    worst_attack: str
    price: Estimate | None
    false_alarms: Estimate | None
    seconds: Estimate | None
    among_best: bool


@dataclass(frozen=True)
class Against:
    """The results under one attack.

    Attributes:
        attack: its title.
        harm: accuracy lost to the attack, or its success rate, without a defense (fraction).
        harmful: whether `harm` is above 0 with 95 % confidence.
        best: the defense with the highest mean of the figure; "undefended" is possible.
        reached: that mean (fraction).
        equals: other defenses that are not distinguishable from the best one.
    """

    attack: str
    harm: Estimate | None
    harmful: bool
    best: str
    reached: Estimate
    equals: list[str]


@dataclass(frozen=True)
class Answer:
    """The recommendation for one setting.

    Attributes:
        setting: its title.
        goal: what the attacks are after.
        attacks: the titles of the attacks.
        candidates: the defenses that ran against every attack, by their worst case, the best first.
        against: one entry per attack.
        doubts: sentences that limit what can be concluded.
        thin: whether there are too few seeds for a recommendation.
    """

    setting: str
    goal: Goal
    attacks: list[str]
    candidates: list[Candidate]
    against: list[Against]
    doubts: list[str]
    thin: bool


def goals_in(results: Results, observations: Observations, setting: str) -> list[Goal]:
    """Return what the attacks of a setting are after; attacks on the accuracy also where no attack was run.

    Args:
        results: the benchmark.
        observations: the measured values of its finished runs.
        setting: the title of the setting.
    """
    attacks = _attacks(results, observations, setting)
    targeted = [name for name in attacks if _is_targeted(observations, setting, name)]
    return [
        *([UNTARGETED] if len(targeted) < len(attacks) or not attacks else []),
        *([TARGETED] if targeted else []),
    ]


def answer(
    results: Results,
    observations: Observations,
    setting: str,
    attackers: Attackers | None = None,
    goal: Goal = UNTARGETED,
) -> Answer:
    """Compute the recommendation for one setting from its finished runs.

    Args:
        results: the benchmark.
        observations: the measured values of its finished runs.
        setting: the title of the setting.
        attackers: the number or the share of the attackers; None: all attacks of the setting, whatever their number.
        goal: what the attacks are after; those with another goal do not count.

    Returns:
        The recommendation, with the reasons to doubt it.
    """
    titles = observations.titles
    here = [run for run in results.runs if titles.setting(run) == setting]
    runs = [run for run in here if run.seed not in results.validation_seeds]
    attacks = [
        name
        for name, number in _attacks(results, observations, setting).items()
        if attackers in (None, number) and _is_targeted(observations, setting, name) == (goal is TARGETED)
    ]
    defenses = [name for name in titles.defenses if any(titles.defense(run) == name for run in runs)]
    rejected, unchosen = _rejected(results, observations, setting, attacks, goal)
    defenses = [name for name in defenses if name not in rejected]
    against = [found for attack in attacks if (found := _against(observations, setting, attack, defenses, goal))]
    worst = shared_seeds(
        {name: _worst_by_seed(observations.by_seed, setting, attacks, name, goal) for name in defenses}
    )
    candidates = _candidates(observations, setting, attacks, goal, worst)

    doubts = []
    seeds = candidates[0].worst.seeds if candidates else 0
    few = [candidate.defense for candidate in candidates if candidate.worst.seeds < ENOUGH_SEEDS]
    if not attacks:
        doubts.append("No attack was run, so the protection is unknown.")
    elif not candidates:
        doubts.append("No defense has finished against every attack with the same seed.")
    elif few:
        doubts.append(f"Fewer than {ENOUGH_SEEDS} seeds, too few to estimate the spread of results: {', '.join(few)}.")
    if left := [name for name in defenses if attacks and name not in worst]:
        doubts.append(f"Not compared, since runs against some attack are missing: {', '.join(left)}.")
    if unchosen and attacks:
        doubts.append(f"Not compared, since runs on the validation seeds are missing: {', '.join(unchosen)}.")
    runs = [run for run in runs if titles.attack(run) in (NO_ATTACK, *attacks)]
    if unfinished := sum(run.state != "finished" for run in runs):
        doubts.append(f"{unfinished} of {len(runs)} runs failed or are missing.")
    once = [entry.attack for entry in against if entry.harm is not None and entry.harm.seeds == 1]
    if once:
        doubts.append(f"One seed cannot show that these do harm without a defense: {', '.join(once)}.")
    if harmless := [entry.attack for entry in against if not entry.harmful and entry.attack not in once]:
        doubts.append(f"Not shown to do harm even without a defense: {', '.join(harmless)}.")
    return Answer(setting, goal, attacks, candidates, against, doubts, thin=seeds < ENOUGH_SEEDS)


def attackers_of(run: RunResult) -> Attackers:
    """Return the number or the share of a run's attackers, as its configuration has it; 0 without an attack.

    Args:
        run: of a benchmark.
    """
    if run.attack["type"] == "none":
        return 0
    asked = run.attack.get("attackers", 1)
    return len(asked) if isinstance(asked, list) else asked


def attackers_in(results: Results) -> list[Attackers]:
    """Return the numbers and shares of attackers in a benchmark, in ascending order, without 0.

    Args:
        results: the benchmark.
    """
    return sorted({attackers_of(run) for run in results.runs} - {0})


def _attacks(results: Results, observations: Observations, setting: str) -> dict[str, Attackers]:
    """Return the titles of a setting's attacks, in the order of the configuration, with the number of attackers."""
    titles = observations.titles
    runs = [run for run in results.runs if titles.setting(run) == setting and run.seed not in results.validation_seeds]
    numbers = {titles.attack(run): attackers_of(run) for run in runs}
    return {name: numbers[name] for name in titles.attacks if name in numbers and name != NO_ATTACK}


def _is_targeted(observations: Observations, setting: str, attack: str) -> bool:
    """Return whether an attack has a success rate under some defense."""
    return any(observations.of_run(setting, attack, name, SUCCESS) for name in observations.titles.defenses)


def _rejected(
    results: Results, observations: Observations, setting: str, attacks: list[str], goal: Goal
) -> tuple[set[str], list[str]]:
    """Return the titles of the swept defenses that are no candidates, and the types that none was chosen of."""
    titles = observations.titles
    variants: dict[str, list[str]] = {}
    for run in results.runs:
        if run.defense in results.sweep and (name := titles.defense(run)) not in variants.setdefault(
            str(run.defense["type"]), []
        ):
            variants[str(run.defense["type"])].append(name)
    rejected: set[str] = set()
    unchosen = []
    for kind, names in variants.items():
        worst = {name: _worst_by_seed(observations.on_validation, setting, attacks, name, goal) for name in names}
        means = {name: found.mean for name, by_seed in shared_seeds(worst).items() if (found := estimate(by_seed))}
        if not means:
            unchosen.append(kind)
        chosen = max(means, key=lambda name: means[name]) if means else None
        rejected |= {name for name in names if name != chosen}
    return rejected, unchosen


def shared_seeds(figures: Mapping[str, BySeed]) -> dict[str, BySeed]:
    """Return the figures on the seeds that all have: who failed on a hard seed must not look better for it.

    Args:
        figures: by name and seed. Without a seed that all share, those with the fewest seeds are left out.

    Example:
        >>> one = Measurement(0.5, ())
        >>> figures = {"krum": {0: one, 1: one}, "median": {1: one, 2: one}, "flame": {}}
        >>> {name: list(by_seed) for name, by_seed in shared_seeds(figures).items()}
        {'krum': [1], 'median': [1]}
    """
    kept = sorted((name for name in figures if figures[name]), key=lambda name: len(figures[name]), reverse=True)
    while kept:
        common = set.intersection(*(set(figures[name]) for name in kept))
        if common:
            return {
                name: {seed: found for seed, found in by_seed.items() if seed in common}
                for name, by_seed in figures.items()
                if name in kept
            }
        kept.pop()
    return {}


def _against(observations: Observations, setting: str, attack: str, defenses: list[str], goal: Goal) -> Against | None:
    figures = shared_seeds({name: observations.of_run(setting, attack, name, goal.metric) for name in defenses})
    found = {name: mean for name, figure in figures.items() if (mean := estimate(figure))}
    if not found:
        return None
    best = max(found, key=lambda name: found[name].mean)
    equals = [name for name in found if name != best and not _distinguishable(figures[best], figures[name])]
    harm = observations.of_run(setting, attack, UNDEFENDED, goal.harm[0])
    return Against(attack, estimate(harm), surely_positive(harm), best, found[best], equals)


def _worst_by_seed(
    values: Callable[[Key], BySeed], setting: str, attacks: list[str], defense: str, goal: Goal
) -> BySeed:
    """Return the lowest figure over the attacks, for each seed in which the runs under all attacks finished."""
    found = [values(Key(setting, attack, defense, "run", "", goal.metric)) for attack in attacks]
    if not found:
        return {}
    seeds = [seed for seed in found[0] if all(seed in by_seed for by_seed in found)]
    return {
        seed: Measurement(
            min(by_seed[seed].value for by_seed in found), tuple(run for by_seed in found for run in by_seed[seed].runs)
        )
        for seed in seeds
    }


def _candidates(
    observations: Observations, setting: str, attacks: list[str], goal: Goal, worst: dict[str, BySeed]
) -> list[Candidate]:
    means = {name: found for name, by_seed in worst.items() if (found := estimate(by_seed))}
    order = sorted(means, key=lambda name: means[name].mean, reverse=True)
    clean = partial(observations.of_run, setting, NO_ATTACK, metric="accuracy")
    return [
        Candidate(
            defense=name,
            worst=means[name],
            worst_attack=_worst_attack(observations, setting, attacks, name, goal),
            price=None if name == UNDEFENDED else difference(clean(defense=UNDEFENDED), clean(defense=name)),
            false_alarms=estimate(observations.of_defense(setting, NO_ATTACK, name, "FPR")),
            seconds=estimate(_seconds(observations, setting, [NO_ATTACK, *attacks], name)),
            among_best=name == order[0] or not _distinguishable(worst[order[0]], worst[name]),
        )
        for name in order
    ]


def _worst_attack(observations: Observations, setting: str, attacks: list[str], defense: str, goal: Goal) -> str:
    def mean(attack: str) -> float:
        found = estimate(observations.of_run(setting, attack, defense, goal.metric))
        return found.mean if found else float("inf")

    return min(attacks, key=mean)


def _seconds(observations: Observations, setting: str, attacks: list[str], defense: str) -> BySeed:
    """Return the mean time of a defense over the attacks, for each seed."""
    found = [observations.of_defense(setting, attack, defense, "seconds per round") for attack in attacks]
    seeds = dict.fromkeys(seed for by_seed in found for seed in by_seed)
    by_seed = {seed: [one[seed] for one in found if seed in one] for seed in seeds}
    return {
        seed: Measurement(
            sum(one.value for one in measured) / len(measured), tuple(run for one in measured for run in one.runs)
        )
        for seed, measured in by_seed.items()
    }


def _distinguishable(better: BySeed, other: BySeed) -> bool:
    return surely_positive(differences(better, other))
