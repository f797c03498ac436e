"""The paper's figures, the files that ask its questions, and ours beside its."""

import csv
import json
import re
from pathlib import Path

import pytest

import made_up
from benchmark.config import read_config
from benchmark.measures.observations import Observations
from benchmark.measures.results import load
from benchmark.paper import beside, claims, configurations, places
from benchmark.report.console import console
from benchmark.report.tables import write_tables
from fedml_gradcam_ae.contract.settings import SettingsError

ATTACK = {"type": "constrained_perturbation", "attackers": 0.1, "steps": 5}
OTHERS = [{**ATTACK, "radius": 0.3}, {**ATTACK, "attackers": 4}, {"type": "uniform_noise", "attackers": 2}]
DATA = [
    {"name": "digits", "partition": "iid", "beta": None},
    {"name": "digits", "partition": "dirichlet", "beta": 0.5},
]


@pytest.mark.parametrize("claim", [claim for claim in claims() if "ACC" in claim.values], ids=lambda claim: claim.title)
def test_the_figures_of_a_claim_agree_with_each_other(claim) -> None:
    """A typing error would not: with a share p of attackers, ACC is p recall + (1 - p) (1 - FPR)."""
    values = claim.values
    specificity = (values["ACC"] - claim.attackers * values["recall"]) / (1 - claim.attackers)
    assert values["balanced accuracy"] == pytest.approx((values["recall"] + specificity) / 2, abs=0.002)
    if "FPR" in values:
        assert 1 - values["FPR"] == pytest.approx(specificity, abs=0.002)


PAPER = {"type": "gradcam_ae", "profile": "paper"}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    made_up.write(
        out,
        [{"type": "none"}, ATTACK, *OTHERS],
        [{"type": "none"}, {"type": "gradcam_ae"}, PAPER, {"type": "fltrust"}, {"type": "fldetector"}],
        [0, 1, 2],
        ["gradcam_krum", "auror", "gradcam_ae"],
        {
            "gradcam_ae": made_up.Detector({ATTACK["type"]: 2.0}),
            "gradcam_krum": made_up.Detector({ATTACK["type"]: 9.0}, follows_one=True),
        },
        settings=DATA,
        clients=20,
        paper=["Table 1", "Figure 10", "Figure 14", "Figure 15"],
    )
    return out


@pytest.fixture(scope="module")
def lines(out):
    results = load(out)
    return beside(results, Observations(results))


def of(lines, place, method, partition=None):
    return [
        line
        for line in lines
        if line.claim.place == place and line.claim.method == method and line.claim.partition == partition
    ]


def runs_of(lines):
    return {run for line in lines for found in line.found.values() if found for run in found.runs}


def test_a_claim_meets_the_runs_of_its_condition_and_no_others(out, lines) -> None:
    (line,) = of(lines, "Table 1", "gradcam_ae", "dirichlet")
    plans = {run["folder"]: run for run in json.loads((out / "matrix.json").read_text())["runs"]}
    used = [plans[folder] for folder in runs_of([line])]
    assert len(used) == 3
    assert [run["attack"] for run in used] == [ATTACK] * 3
    assert {run["data"]["partition"] for run in used} == {"dirichlet"}
    assert [run["defense"] for run in used] == [PAPER] * 3  # not those of the default profile
    assert line.how == "acting"
    assert line.title == "ours, acting (small_cnn, digits)"
    assert set(line.found) == {"recall", "precision", "ACC", "F1", "balanced accuracy"}


def test_watchers_count_where_nothing_defends(lines) -> None:
    (line,) = of(lines, "Table 1", "gradcam_krum", "iid")
    assert line.how == "watching"
    assert line.found["recall"].mean == 1
    assert all("--none--" in run for run in runs_of([line]))


def test_a_claim_without_runs_says_so(lines) -> None:
    (line,) = of(lines, "Table 1", "faa_dl", "iid")
    assert (line.how, line.title, set(line.found.values())) == (None, "not run", {None})
    hundred = [line for line in lines if line.claim.place == "Figure 14" and line.claim.clients == 100]
    assert [line.how for line in hundred] == [None]


def test_a_claim_of_a_difference_is_paired_over_seeds(out, lines) -> None:
    line = next(line for line in of(lines, "Figure 10", "gradcam_ae", "dirichlet") if line.claim.minus == "fltrust")
    last = {folder.name: float(_last(folder)["accuracy"]) for folder in out.glob("*--seed*")}
    plans = json.loads((out / "matrix.json").read_text())["runs"]
    mean = {
        name: sum(
            last[run["folder"]]
            for run in plans
            if (run["attack"], run["defense"], run["data"]["partition"]) == (ATTACK, defense, "dirichlet")
        )
        / 3
        for name, defense in (("gradcam_ae", PAPER), ("fltrust", {"type": "fltrust"}))
    }
    assert line.found["accuracy"].mean == pytest.approx(mean["gradcam_ae"] - mean["fltrust"])
    assert line.found["accuracy"].seeds == 3


def _last(folder):
    return json.loads((folder / "tests.jsonl").read_text().splitlines()[-1])


def test_a_claim_that_leaves_the_partition_open_has_a_line_for_each(lines) -> None:
    titles = [line.title for line in of(lines, "Figure 15", "gradcam_ae")]
    assert titles == [
        "ours, acting (partition iid; small_cnn, digits)",
        "ours, acting (partition dirichlet, beta 0.5; small_cnn, digits)",
    ]


def test_the_console_and_the_table_show_paper_and_ours(out) -> None:
    results = load(out)
    observations = Observations(results)
    text = console(results, observations)
    assert re.search(r"\ngradcam_ae, iid +paper +1\.000 +1\.000 +1\.000 +1\.000 +1\.000\n +ours, acting", text)
    write_tables(results, observations, out)
    with (out / "results/paper.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["claim"] == "gradcam_ae, iid" and row["metric"] == "recall"]
    (row,) = rows
    assert (row["paper"], row["how"], row["unit"], row["seeds"]) == ("1", "acting", "fraction", "3")
    assert len(row["runs"].split()) == 3


def test_results_on_the_papers_own_data_need_no_stand_in(tmp_path) -> None:
    own = {"name": "cifar10", "partition": "iid", "beta": None}
    out = tmp_path / "out"
    made_up.write(
        out,
        [{"type": "none"}, ATTACK],
        [{"type": "gradcam_ae", "profile": "paper"}],
        [0],
        settings=[DATA[0], own],
        clients=20,
        paper=["Table 1"],
    )
    for path in (out / "matrix.json", *out.glob("*/config.json")):
        path.write_text(path.read_text().replace('"small_cnn"', '"resnet18"'))
    results = load(out)
    (line,) = of(beside(results, Observations(results)), "Table 1", "gradcam_ae", "iid")
    assert line.title == "ours, acting"
    assert "cifar10" in line.setting


def test_the_committed_configurations_are_those_that_the_code_writes() -> None:
    committed = {path.name: path.read_text() for path in configurations.FOLDER.glob("*.yaml")}
    assert committed == configurations.files(), "run python -m benchmark.paper.configurations"


def test_every_configuration_can_be_read_and_every_table_and_figure_has_one() -> None:
    named, headings = set(), ""
    for path in sorted(configurations.FOLDER.glob("*.yaml")):
        config = read_config(path)
        assert len(config.runs()) >= 8
        named.update(config.paper)
        headings += path.read_text().splitlines()[0] + "\n" if "-" not in path.stem else ""
    assert named == set(places())
    for number in range(1, 7):
        assert f"Table {number}:" in headings
    told = {int(number) for number in re.findall(r"\b(\d+)\b", " ".join(re.findall(r"Figure[^:\n]*.*", headings)))}
    assert set(range(4, 16)) <= told


def test_a_place_that_is_not_in_the_paper_is_refused(tmp_path) -> None:
    path = Path(tmp_path / "config.yaml")
    path.write_text((configurations.FOLDER / "table1-tiny.yaml").read_text().replace("Table 1,", "Table 11,"))
    with pytest.raises(SettingsError, match=r"Unknown place .Table 11. of the paper\. Did you mean .Table 1."):
        read_config(path)
