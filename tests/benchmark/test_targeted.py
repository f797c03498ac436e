"""Targeted attacks in the suite: from the raw lines to the tables, the intervals, the check and the report."""

import csv
import json

import pytest

import made_up
from benchmark.measures.observations import Observations
from benchmark.measures.results import load
from benchmark.report import report
from benchmark.report.console import console
from benchmark.report.tables import write_tables
from benchmark.report.tables.check import check

BADNETS = {"type": "badnets", "attackers": 2, "last_round": 4}
FLIP = {"type": "label_flip", "attackers": 2, "source": 3, "target": 1}
DEFENSES = [{"type": "none"}, {"type": "median"}]
TARGETED = [
    "attack success rate (fraction)",
    "source recall (fraction)",
    "durability (rounds)",
    "protected accuracy (fraction)",
]


def rate(attack, defense, number, seed):
    """Undefended: high until two rounds after the attack's end. Defended: low."""
    if attack == "none":
        return None
    if defense == "median":
        return 0.1
    return 0.9 + seed / 100 if number <= 5 else 0.3 + seed / 100


def written(out, attacks):
    made_up.write(out, attacks, DEFENSES, [0, 1, 2])
    for folder in out.glob("*--*"):
        attack, defense, seed = folder.name.split("--")[:3]
        lines = [json.loads(line) for line in (folder / "tests.jsonl").read_text().splitlines()]
        for line in lines:
            success = rate(attack, defense, line["round"], int(seed.removeprefix("seed")))
            line.update({} if success is None else {"success": success})
        (folder / "tests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = load(out)
    write_tables(results, Observations(results), out)
    return out


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return written(tmp_path_factory.mktemp("out"), [{"type": "none"}, BADNETS, FLIP])


def table(out, name, **wanted):
    with (out / "results" / f"{name}.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[key] == value for key, value in wanted.items())]


def test_each_run_has_its_figures(out) -> None:
    (row,) = table(out, "runs", attack="badnets", defense="undefended", seed="2")
    reached = made_up.accuracy_of("badnets", "none", 6, 2)
    assert [row[heading] for heading in TARGETED[:3]] == [
        "0.32",
        "",
        "2",
    ]  # below one half after round 6 for the first time
    assert float(row[TARGETED[3]]) == pytest.approx(reached * 0.68)
    (row,) = table(out, "runs", attack="badnets", defense="median", seed="2")
    assert [row[heading] for heading in TARGETED[:3]] == ["0.1", "", ""]  # it never succeeded
    (row,) = table(out, "runs", attack="label_flip", defense="undefended", seed="0")
    accuracy = made_up.accuracy_of("label_flip", "none", 6, 0)
    assert float(row["source recall (fraction)"]) == pytest.approx(accuracy - 0.03)
    assert row["durability (rounds)"] == ""  # the attack has no end
    for row in table(out, "runs", attack="no attack"):
        assert [row[heading] for heading in TARGETED] == [""] * 4


def test_rounds_have_their_success_rate(out) -> None:
    rows = table(out, "accuracy", attack="badnets", defense="undefended", seed="1")
    assert [row[TARGETED[0]] for row in rows] == ["0.91"] * 5 + ["0.31"]


def test_means_have_intervals_and_defenses_are_compared(out) -> None:
    (row,) = table(out, "summary", attack="badnets", defense="undefended", metric="attack success rate")
    assert float(row["mean"]) == pytest.approx(0.31)
    assert float(row["95 % interval from"]) < 0.31 < float(row["95 % interval to"])
    (row,) = table(out, "differences", attack="badnets", metric="attack success rate")
    assert float(row["mean"]) == pytest.approx(0.21)
    (row,) = table(out, "summary", attack="badnets", metric="durability")
    assert (row["mean"], row["unit"], row["seeds"]) == ("2", "rounds", "3")


def test_a_changed_rate_does_not_pass_the_check(out, tmp_path, capsys) -> None:
    assert check(out) == 0
    changed = written(tmp_path, [{"type": "none"}, BADNETS])
    path = next(changed.glob("badnets--none--seed0*")) / "tests.jsonl"
    path.write_text(path.read_text().replace('"success": 0.3', '"success": 0.2'))
    assert check(changed) == 1
    assert "attack success rate (fraction): '0.3', expected '0.2'" in capsys.readouterr().out


def test_the_report_shows_the_rate_where_there_is_one(out, tmp_path) -> None:
    caption = "Attack success rate: share of the test images with the trigger"
    report(out)
    assert caption in (out / "report.html").read_text()
    untargeted = written(tmp_path, [{"type": "none"}])
    report(untargeted)
    assert caption not in (untargeted / "report.html").read_text()


def test_the_terminal_shows_the_rate_where_there_is_one(out, tmp_path) -> None:
    results = load(out)
    text = console(results, Observations(results))
    rows = {tuple(row.split()[:2]): row.split()[2:] for row in text.splitlines()}
    assert rows["badnets", "undefended"][1] == "0.310"
    assert rows["badnets", "median"][1] == "0.100"
    assert rows["none", "undefended"][1] == "-"
    assert "attack success rate  recall" in text
    results = load(written(tmp_path, [{"type": "none"}]))
    assert "success" not in console(results, Observations(results))


def test_results_without_a_targeted_attack_have_the_tables_that_they_always_had(tmp_path) -> None:
    written(tmp_path, [{"type": "none"}])
    for name in ("runs", "accuracy"):
        headings = (tmp_path / "results" / f"{name}.csv").read_text().splitlines()[0]
        assert not any(heading in headings for heading in TARGETED)
    assert check(tmp_path) == 0
