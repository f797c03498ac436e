"""The tables against figures that are computed here, from the raw lines, in another way."""

import csv
import json
import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef, recall_score, roc_auc_score

import made_up
from benchmark.measures.observations import Observations
from benchmark.measures.results import load
from benchmark.report.tables import write_tables
from benchmark.report.tables.check import check

ATTACKS = [{"type": "none"}, {"type": "uniform_noise", "attackers": 3}]
DEFENSES = [{"type": "none"}, {"type": "gradcam_ae", "profile": "paper"}, {"type": "gradcam_krum"}]
DETECTORS = {
    "gradcam_ae": made_up.Detector({"uniform_noise": 1.5}),
    "gradcam_krum": made_up.Detector({"uniform_noise": 1.0}, follows_one=True),
    "flame": made_up.Detector({"uniform_noise": 1.0}),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    made_up.write(
        out, ATTACKS, DEFENSES, [0, 1, 2], ["flame"], DETECTORS, malicious=3, rounds=7, failed=[6], missing=[17]
    )
    results = load(out)
    write_tables(results, Observations(results), out)
    return out


def table(out, name, **wanted):
    with (out / "results" / f"{name}.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[key] == value for key, value in wanted.items())]


def raw(out, folder, name):
    return [json.loads(line) for line in (out / folder / name).read_text().splitlines()]


def test_detection_of_the_defense_at_votes_and_over_all_rounds(out) -> None:
    rows = table(out, "detection", attack="uniform_noise", defense="gradcam_ae (paper)", role="acting")
    assert len(rows) == 2 * 3
    for row in rows:
        lines = raw(out, row["runs"], "rounds.jsonl")
        chosen = [line for line in lines if line["round"] in (3, 6)] if row["over"] == "votes" else lines
        assert int(row["rounds"]) == len(chosen) == (2 if row["over"] == "votes" else 7)
        truth = [[client["malicious"] for client in line["clients"]] for line in chosen]
        for heading, key in (("left out", "excluded"), ("accused", "flagged")):
            named = [[client[key] for client in line["clients"]] for line in chosen]
            pairs = list(zip(truth, named, strict=True))
            recalls = [recall_score(one, other) for one, other in pairs]
            assert float(row[f"{heading}: recall (fraction)"]) == pytest.approx(np.mean(recalls))
            balanced = [balanced_accuracy_score(one, other) for one, other in pairs]
            assert float(row[f"{heading}: balanced accuracy (fraction)"]) == pytest.approx(np.mean(balanced))
            matthews = [matthews_corrcoef(one, other) for one, other in pairs if any(other)]
            if matthews:
                assert float(row[f"{heading}: MCC (-1 to 1)"]) == pytest.approx(np.mean(matthews))
        scores = [[client["score"] for client in line["clients"]] for line in chosen]
        areas = [roc_auc_score(one, other) for one, other in zip(truth, scores, strict=True)]
        assert float(row["AUROC (fraction)"]) == pytest.approx(np.mean(areas))


def test_watchers_have_rows_of_their_own(out) -> None:
    rows = table(out, "detection", attack="uniform_noise", defense="undefended", over="votes")
    assert [(row["role"], row["detector"]) for row in rows] == [("watched", "flame")] * 3
    for row in rows:
        lines = [line for line in raw(out, row["runs"], "rounds.jsonl") if line["round"] % 3 == 0]
        truth = [[client["malicious"] for client in line["clients"]] for line in lines]
        recalls = [
            recall_score(one, line["watched"]["flame"]["excluded"]) for one, line in zip(truth, lines, strict=True)
        ]
        assert float(row["left out: recall (fraction)"]) == pytest.approx(np.mean(recalls))


def test_without_attackers_there_is_no_recall(out) -> None:
    for row in table(out, "detection", attack="no attack"):
        assert row["left out: recall (fraction)"] == row["AUROC (fraction)"] == ""
        assert 0 <= float(row["left out: FPR (fraction)"]) <= 1


def test_the_report_shows_whom_a_rule_accuses_that_follows_a_single_upload(out) -> None:
    shown = {row["detector"]: row["report shows"] for row in table(out, "detection")}
    assert shown == {"flame": "left out", "gradcam_ae (paper)": "left out", "gradcam_krum": "accused"}
    (row,) = table(out, "summary", attack="no attack", defense="gradcam_krum", role="acting", metric="FPR")
    assert float(row["mean"]) == pytest.approx(0.3)  # three of ten are accused, nine of ten left out
    assert row["decision"] == "accused"


def test_by_round(out) -> None:
    rows = table(out, "detection-by-round", attack="uniform_noise", defense="undefended", seed="0")
    assert [(row["round"], row["vote"]) for row in rows] == [
        (str(number), "yes" if number in (3, 6) else "no") for number in range(1, 8)
    ]
    line = raw(out, rows[4]["runs"], "rounds.jsonl")[4]
    truth = [client["malicious"] for client in line["clients"]]
    assert float(rows[4]["AUROC (fraction)"]) == pytest.approx(roc_auc_score(truth, line["watched"]["flame"]["scores"]))


def test_accuracy_and_impact(out) -> None:
    rows = table(out, "accuracy", attack="uniform_noise", defense="undefended", seed="1")
    assert [float(row["accuracy (fraction)"]) for row in rows] == pytest.approx(
        [made_up.accuracy_of("uniform_noise", "none", number, 1) for number in range(1, 8)]
    )
    assert {row["worst class"] for row in rows} <= {"8", "7", "6", "5", "4", "3", "2"}
    (row,) = table(out, "runs", attack="uniform_noise", defense="undefended", seed="0")
    clean, attacked = (made_up.accuracy_of(attack, "none", 7, 0) for attack in ("none", "uniform_noise"))
    assert float(row["attack impact (fraction)"]) == pytest.approx(clean - attacked)
    assert [name.split("--")[0] for name in row["runs"].split()] == ["uniform_noise", "none"]
    assert float(row["peak memory (MiB)"]) == 1024


def test_runs_that_did_not_finish_have_a_row_without_figures(out) -> None:
    states = {row["runs"]: row for row in table(out, "runs") if row["state"] != "finished"}
    assert sorted(row["state"] for row in states.values()) == ["failed", "missing"]
    assert {row["accuracy (fraction)"] for row in states.values()} == {""}
    # The failed run is the one that the impact in its seed would be measured against.
    (row,) = table(out, "runs", attack="uniform_noise", defense="undefended", seed="1")
    assert row["accuracy (fraction)"]
    assert row["attack impact (fraction)"] == ""
    (row,) = table(out, "summary", attack="uniform_noise", defense="gradcam_krum", role="run", metric="accuracy")
    assert row["seeds"] == "2"


def test_means_over_seeds_name_every_run(out) -> None:
    (row,) = table(out, "summary", attack="no attack", defense="gradcam_ae (paper)", role="run", metric="accuracy")
    values = [made_up.accuracy_of("none", "gradcam_ae", 7, seed) for seed in (0, 1, 2)]
    assert float(row["mean"]) == pytest.approx(np.mean(values))
    assert [float(row["95 % interval from"]), float(row["95 % interval to"])] == pytest.approx(
        [min(values), max(values)]  # one resample of 27 is three times the lowest, which is more than 2.5 %
    )
    assert [name.split("--")[2] for name in row["runs"].split()] == ["seed0", "seed1", "seed2"]


def test_differences_are_on_the_same_seeds(out) -> None:
    (row,) = table(
        out,
        "differences",
        attack="uniform_noise",
        defense="undefended",
        **{"minus defense": "gradcam_krum", "metric": "accuracy"},
    )
    values = [
        made_up.accuracy_of("uniform_noise", "none", 7, seed)
        - made_up.accuracy_of("uniform_noise", "gradcam_krum", 7, seed)
        for seed in (0, 1)
    ]
    assert float(row["mean"]) == pytest.approx(np.mean(values))
    assert len(row["runs"].split()) == 4


def test_time_by_stage(out) -> None:
    (row,) = table(out, "runtime", attack="uniform_noise", defense="gradcam_ae (paper)", seed="0", role="acting")
    seconds = [line["seconds"]["total"] for line in raw(out, row["runs"], "rounds.jsonl")]
    assert (row["stage"], row["rounds"]) == ("total", "7")
    assert float(row["mean per round (s)"]) == pytest.approx(np.mean(seconds))
    assert float(row["longest round (s)"]) == pytest.approx(max(seconds))


def test_every_row_names_runs_that_exist(out) -> None:
    folders = {run.folder for run in load(out).runs}
    for path in (out / "results").glob("*.csv"):
        rows = table(out, path.stem)
        assert (
            rows or path.stem == "paper"
        )  # this benchmark names no table of the paper; test_paper.py has one that does
        for row in rows:
            assert set(row["runs"].split()) <= folders
            assert row["runs"]


def test_the_check_finds_what_was_changed(out, capsys) -> None:
    assert check(out) == 0
    assert capsys.readouterr().out.startswith("9 tables with ")
    path = out / "results" / "accuracy.csv"
    whole = path.read_text()
    lines = whole.splitlines()
    cells = lines[4].split(",")
    cells[5] = "0.9999"
    path.write_text("\n".join([*lines[:4], ",".join(cells), *lines[5:], ""]))
    assert check(out) == 1
    assert "accuracy.csv, line 5, accuracy (fraction): '0.9999', expected '0." in capsys.readouterr().out
    path.write_text("\n".join([*lines[:-1], ""]))
    assert check(out) == 1
    assert f"accuracy.csv: {len(lines) - 2} rows, expected {len(lines) - 1}" in capsys.readouterr().out
    path.write_text("\n".join(["other", *lines[1:], ""]))
    assert check(out) == 1
    assert "the headings are other" in capsys.readouterr().out
    path.unlink()
    assert check(out) == 1
    assert "accuracy.csv: missing" in capsys.readouterr().out
    path.write_text(whole)
    assert check(out) == 0


def test_the_check_notices_a_changed_raw_line_and_forgives_rounding(out, capsys) -> None:
    path = next(out.glob("uniform_noise--none--seed0*")) / "tests.jsonl"
    whole = path.read_text()
    lines = [json.loads(line) for line in whole.splitlines()]
    lines[-1]["accuracy"] = math.nextafter(lines[-1]["accuracy"], 1)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert check(out) == 0
    lines[-1]["accuracy"] += 0.01
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert check(out) == 1
    path.write_text(whole)
    assert "summary.csv" in capsys.readouterr().out
