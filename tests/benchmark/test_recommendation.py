"""The answer on the first screen, on benchmarks whose answer is known."""

import json
import re

import numpy as np
import pytest

import made_up
from benchmark.measures.observations import Observations
from benchmark.measures.recommendation import TARGETED, UNTARGETED, answer, goals_in
from benchmark.measures.results import load
from benchmark.report.advice import advice
from benchmark.report.first_screen import first_screen
from benchmark.report.tables.check import check
from benchmark.report.tables.recommendation_csv import recommendation
from benchmark.report.tables.runs_csv import runs
from benchmark.report.view import View

ATTACKS = [{"type": "none"}, {"type": "mpaf"}, {"type": "fang"}]
DEFENSES = [{"type": "none"}, {"type": "flame"}, {"type": "krum"}, {"type": "median"}]
LEVELS = {
    "none": {"none": 0.80, "mpaf": 0.10, "fang": 0.79},
    "flame": {"none": 0.80, "mpaf": 0.70, "fang": 0.60},
    "krum": {"none": 0.60, "mpaf": 0.60, "fang": 0.60},
    "median": {"none": 0.79, "mpaf": 0.30, "fang": 0.75},
}


def accuracy(attack, defense, round, seed):
    """The seed moves all of them alike; krum and flame trade places in their worst case."""
    swing = {"flame": [0.02, -0.02, 0.02, -0.01], "krum": [-0.02, 0.02, -0.01, 0.01]}.get(defense, [0.0, 0.0, 0.002, 0])
    return LEVELS[defense][attack] + 0.01 * seed + swing[seed]


@pytest.fixture
def ask(tmp_path):
    def ask(**changes):
        made_up.write(
            tmp_path,
            **{"attacks": ATTACKS, "defenses": DEFENSES, "seeds": [0, 1, 2, 3], "accuracy": accuracy, **changes},
        )
        results = load(tmp_path)
        return answer(results, Observations(results), "")

    return ask


def test_the_best_worst_case_and_what_is_not_told_apart_from_it(ask) -> None:
    found = ask()
    assert [candidate.defense for candidate in found.candidates] == ["flame", "krum", "median", "undefended"]
    assert [candidate.among_best for candidate in found.candidates] == [True, True, False, False]
    assert found.candidates[0].worst_attack == "fang"
    assert {candidate.worst_attack for candidate in found.candidates[2:]} == {"mpaf"}
    expected = np.mean([accuracy("fang", "flame", 6, seed) for seed in range(4)])
    assert found.candidates[0].worst.mean == pytest.approx(expected)
    assert len(found.candidates[0].worst.runs) == 2 * 4
    assert not found.thin
    assert found.doubts == []


def test_the_price_is_paid_without_attack(ask) -> None:
    found = {candidate.defense: candidate for candidate in ask().candidates}
    assert found["krum"].price.mean == pytest.approx(0.2 + 0.0005)
    assert found["undefended"].price is None
    assert found["undefended"].seconds is None
    assert found["krum"].seconds.mean == pytest.approx(0.5, abs=0.05)
    assert found["krum"].false_alarms is not None


def test_against_each_attack(ask) -> None:
    mpaf, fang = ask().against
    assert (mpaf.attack, mpaf.best, mpaf.equals, mpaf.harmful) == ("mpaf", "flame", [], True)
    assert mpaf.harm.mean == pytest.approx(0.7)
    assert (fang.best, fang.equals) == ("undefended", [])


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_few_seeds_are_too_thin(ask, seeds) -> None:
    found = ask(seeds=seeds)
    assert found.thin
    assert found.doubts[0].startswith("Fewer than 3 seeds, too few to estimate the spread of results: flame, krum")
    assert all(candidate.among_best for candidate in found.candidates) == (len(seeds) == 1)


def test_a_defense_that_misses_an_attack_is_not_compared(ask) -> None:
    positions = [seed * 12 + 2 * 4 + 1 for seed in range(4)]  # flame under fang
    found = ask(failed=positions)
    assert [candidate.defense for candidate in found.candidates] == ["krum", "median", "undefended"]
    assert "Not compared, since runs against some attack are missing: flame." in found.doubts
    assert "4 of 48 runs failed or are missing." in found.doubts


def test_without_attacks_or_without_any_run_there_is_nothing_to_recommend(ask) -> None:
    found = ask(attacks=ATTACKS[:1])
    assert (found.candidates, found.against, found.thin) == ([], [], True)
    assert found.doubts == ["No attack was run, so the protection is unknown."]


def test_no_run_at_all(ask) -> None:
    found = ask(missing=range(48))
    assert found.candidates == []
    assert found.doubts[0] == "No defense has finished against every attack with the same seed."


def test_an_attack_without_harm_is_named(ask) -> None:
    def harmless(attack, defense, round, seed):
        return 0.8 + 0.01 * ((seed * 7 + len(attack)) % 3)

    found = ask(accuracy=harmless)
    assert "Not shown to do harm even without a defense: mpaf, fang." in found.doubts
    assert all(candidate.among_best for candidate in found.candidates)


def test_what_one_seed_cannot_show_is_not_called_harmless(ask) -> None:
    doubts = ask(seeds=[0]).doubts
    assert "One seed cannot show that these do harm without a defense: mpaf, fang." in doubts
    assert not any("Not shown to do harm" in doubt for doubt in doubts)


SWEEP = [{"type": "krum", "malicious": 1}, {"type": "krum", "malicious": 2}]


@pytest.fixture
def swept(tmp_path):
    """Krum with two settings: the first one is better on seeds 8 and 9, the second one on all other seeds."""

    def write(**changes):
        def level(attack, defense, round, seed):
            return {"none": 0.2, "median": 0.5, "krum": 0.6}[defense] + 0.001 * seed

        defenses = [{"type": "none"}, {"type": "median"}, *SWEEP]
        given = {"attacks": ATTACKS, "defenses": defenses, "seeds": [0, 1, 2, 8, 9], "accuracy": level}
        made_up.write(tmp_path, **given, sweep=SWEEP, validation_seeds=[8, 9], **changes)
        results = load(tmp_path)
        for run in results.runs:  # the made-up accuracy knows the type only
            better = run.seed >= 8
            if run.defense["type"] == "krum" and (run.defense["malicious"] == 1) != better:
                path = tmp_path / run.folder / "tests.jsonl"
                if path.exists():
                    path.write_text(path.read_text().replace('"accuracy": 0.6', '"accuracy": 0.4'))
        results = load(tmp_path)
        return results, Observations(results)

    return write


def test_settings_are_chosen_on_validation_seeds_and_judged_on_others(swept) -> None:
    results, observations = swept()
    found = answer(results, observations, "")
    assert [candidate.defense for candidate in found.candidates] == ["median", "krum (malicious 1)", "undefended"]
    krum = found.candidates[1].worst
    assert krum.mean == pytest.approx(np.mean([0.4, 0.401, 0.402]))  # not what it reached on the validation seeds
    assert krum.seeds == 3
    judged = {run.folder for run in results.runs if run.seed < 8}
    assert {run for row in recommendation(results, observations).rows for run in row[-1].split()} <= judged
    assert "chosen on the seeds 8, 9" in advice(results, observations)


def test_without_runs_on_validation_seeds_nothing_is_chosen(swept) -> None:
    each = len(ATTACKS) * 4
    results, observations = swept(missing=range(3 * each, 5 * each))
    found = answer(results, observations, "")
    assert [candidate.defense for candidate in found.candidates] == ["median", "undefended"]
    assert "Not compared, since runs on the validation seeds are missing: krum." in found.doubts


def test_no_table_counts_validation_seeds(swept) -> None:
    results, observations = swept()
    assert {run.seed for run in results.judged} == {0, 1, 2}
    assert {seed for key in observations.keys() for seed in observations.by_seed(key)} == {0, 1, 2}  # noqa: SIM118


def test_the_table_of_runs_says_which_seeds_settings_are_chosen_on(swept) -> None:
    table = runs(*swept())
    seed, purpose = (table.headings.index(heading) for heading in ("seed", "seed is for"))
    assert {(row[seed], row[purpose]) for row in table.rows} == {
        *((seed, "judging") for seed in ("0", "1", "2")),
        *((seed, "choosing") for seed in ("8", "9")),
    }


def test_a_defense_that_ruins_the_model_does_not_win_against_backdoors(tmp_path) -> None:
    backdoor = {"type": "badnets"}

    def level(attack, defense, round, seed):
        return {"none": 0.93, "krum": 0.10, "flame": 0.90}[defense] + 0.001 * seed

    defenses = [{"type": name} for name in ("none", "krum", "flame")]
    made_up.write(tmp_path, [{"type": "none"}, backdoor], defenses, [0, 1, 2], accuracy=level)
    for run in load(tmp_path).runs:
        if run.attack == backdoor:
            path = tmp_path / run.folder / "tests.jsonl"
            success = {"none": 0.9, "krum": 0.0, "flame": 0.05}[run.defense["type"]]
            lines = [{**json.loads(line), "success": success} for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = load(tmp_path)
    found = answer(results, Observations(results), "", goal=TARGETED)
    assert [candidate.defense for candidate in found.candidates] == ["flame", "krum", "undefended"]


def test_a_run_that_failed_on_a_hard_seed_does_not_make_a_defense_look_better(tmp_path) -> None:
    def level(attack, defense, round, seed):
        return {"none": 0.1, "krum": 0.80, "median": 0.85}[defense] - (0.6 if seed == 2 else 0.0) + 0.001 * seed

    defenses = [{"type": name} for name in ("none", "krum", "median")]
    attacks = [{"type": "none"}, {"type": "mpaf"}]
    folders = made_up.write(tmp_path, attacks, defenses, [0, 1, 2], accuracy=level)
    failed = next(position for position, name in enumerate(folders) if name.startswith("mpaf--krum--seed2"))
    made_up.write(tmp_path / "again", attacks, defenses, [0, 1, 2], accuracy=level, failed=[failed])
    results = load(tmp_path / "again")
    found = answer(results, Observations(results), "")
    assert [(candidate.defense, candidate.worst.seeds) for candidate in found.candidates[:2]] == [
        ("median", 2),
        ("krum", 2),
    ]
    assert found.against[0].best == "median"


def test_each_number_of_attackers_has_an_answer_of_its_own(ask, tmp_path) -> None:
    few, many = {"type": "mpaf", "attackers": 2}, {"type": "mpaf", "attackers": 4}

    ask(attacks=[{"type": "none"}, few, many], seeds=[0, 1, 2])
    results = load(tmp_path)
    for run in results.runs:
        if run.attack == many and run.defense["type"] == "flame":
            path = tmp_path / run.folder / "tests.jsonl"
            path.write_text(path.read_text().replace('"accuracy": 0.7', '"accuracy": 0.2'))
    results = load(tmp_path)
    observations = Observations(results)
    best = {number: answer(results, observations, "", number).candidates[0].defense for number in (2, 4)}
    assert best == {2: "flame", 4: "krum"}
    assert next(row[2:4] for row in recommendation(results, observations).rows if row[2] == "4") == ("4", "krum")
    lines = advice(results, observations).splitlines()
    assert [line.split()[7] for line in lines[2:4]] == ["flame", "krum"]


def test_check_follows_the_recommendation_to_the_raw_lines(ask, tmp_path, capsys) -> None:
    from benchmark.report.tables import write_tables

    ask()
    results = load(tmp_path)
    write_tables(results, Observations(results), tmp_path)
    assert check(tmp_path) == 0
    path = tmp_path / "results" / "recommendation.csv"
    path.write_text(path.read_text().replace("flame,yes", "flame,no"))
    assert check(tmp_path) == 1
    assert "recommendation.csv, line 2, among the best: 'no', expected 'yes'" in capsys.readouterr().out


def test_targeted_attacks_have_an_answer_of_their_own(ask, tmp_path) -> None:
    backdoor = {"type": "badnets"}

    def level(attack, defense, round, seed):
        return accuracy("none" if attack == "badnets" else attack, defense, round, seed)

    ask(attacks=[{"type": "none"}, {"type": "mpaf"}, backdoor], seeds=[0, 1, 2], accuracy=level)
    rates = {"none": 0.9, "flame": 0.5, "krum": 0.1, "median": 0.8}
    for run in load(tmp_path).runs:
        if run.attack == backdoor:
            path = tmp_path / run.folder / "tests.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            success = rates[run.defense["type"]] + 0.001 * run.seed
            path.write_text("".join(json.dumps({**line, "success": success}) + "\n" for line in lines))
    results = load(tmp_path)
    observations = Observations(results)
    assert goals_in(results, observations, "") == [UNTARGETED, TARGETED]
    on_accuracy, targeted = (answer(results, observations, "", goal=goal) for goal in (UNTARGETED, TARGETED))
    assert {candidate.worst_attack for candidate in on_accuracy.candidates} == {"mpaf"}
    assert on_accuracy.candidates[0].defense == "flame"
    assert [candidate.defense for candidate in targeted.candidates] == ["krum", "flame", "median", "undefended"]
    protected = [accuracy("none", "krum", 6, seed) * (0.9 - 0.001 * seed) for seed in (0, 1, 2)]
    assert targeted.candidates[0].worst.mean == pytest.approx(np.mean(protected))
    (against,) = targeted.against
    assert (against.attack, against.best, against.harmful) == ("badnets", "krum", True)
    assert against.harm.mean == pytest.approx(0.901)
    assert re.search(r"targeted attacks +1 attacker +krum", advice(results, observations))
    page = first_screen(View(tmp_path, results, observations))
    assert "Targeted attacks" in page
    assert "Use krum." in page
    assert "accuracy x (1 - attack success rate)" in page
