"""The table in the terminal: names, numbers, defects, and what is missing."""

import json

import pytest

import made_up
from benchmark.measures.defects import known_defect
from benchmark.measures.observations import Observations
from benchmark.measures.results import load
from benchmark.measures.titles import Titles, title
from benchmark.report.console import console


def shown(out, **changes):
    attacks = [{"type": "none"}, {"type": "mpaf"}]
    defenses = [{"type": "none"}, {"type": "fedml:rfa"}, {"type": "flame"}]
    detectors = {"flame": made_up.Detector({"mpaf": 9.0})}
    made_up.write(
        out,
        **{"attacks": attacks, "defenses": defenses, "seeds": [0, 1], "detectors": detectors, "clients": 20, **changes},
    )
    return printed(out)


def printed(out):
    results = load(out)
    return console(results, Observations(results))


def test_one_row_per_attack_and_defense(tmp_path) -> None:
    text = shown(tmp_path)
    rows = [row.split() for row in text.splitlines() if row.startswith(("none", "mpaf"))]
    assert [row[:2] for row in rows] == [
        [attack, defense] for attack in ("none", "mpaf") for defense in ("undefended", "fedml:rfa", "flame")
    ]
    mean = sum(made_up.accuracy_of("mpaf", "flame", 6, seed) for seed in (0, 1)) / 2
    assert rows[-1][2:4] == [f"{mean:.3f}", "1.00"]
    assert rows[0][3:] == ["-"] * 4
    assert "fedml:rfa, as shipped: with equal sample counts FedML answers with the first client's model." in text
    assert "failed" not in text


def test_what_is_missing_is_said(tmp_path) -> None:
    assert "Of 12 runs, 1 failed (see error.txt in their folders) and 2 are missing." in shown(
        tmp_path, failed=[1], missing=[2, 3]
    )


def test_no_row_for_what_was_not_to_be_run(tmp_path) -> None:
    shown(tmp_path)
    matrix = json.loads((tmp_path / "matrix.json").read_text())
    kept = [run for run in matrix["runs"] if run["defense"]["type"] == "flame" or run["attack"]["type"] == "none"]
    (tmp_path / "matrix.json").write_text(json.dumps({**matrix, "runs": kept}))
    rows = [row.split()[:2] for row in printed(tmp_path).splitlines() if row.startswith(("none", "mpaf"))]
    assert rows == [["none", "undefended"], ["none", "fedml:rfa"], ["none", "flame"], ["mpaf", "flame"]]


def test_a_table_for_each_setting(tmp_path) -> None:
    settings = [
        {"name": "digits", "partition": "iid"},
        {"name": "digits", "partition": "dirichlet", "beta": 0.5},
        {"name": "cifar10", "partition": "iid"},
    ]
    text = shown(tmp_path, settings=settings)
    headings = [line for line in text.splitlines() if line.startswith(("digits", "cifar10"))]
    assert headings == ["digits, partition iid", "digits, partition dirichlet, beta 0.5", "cifar10, partition iid"]
    assert len(Titles(load(tmp_path)).settings) == 3


def test_a_row_says_what_tells_it_from_the_others_of_its_type() -> None:
    entries = [
        {"type": "none"},
        {"type": "fang", "rule": "krum", "attackers": 2},
        {"type": "fang", "attackers": 2},
        {"type": "gradcam_ae", "profile": "paper", "probe_size": 32},
        {"type": "gradcam_ae", "profile": "robust"},
        {"type": "gradcam_ae", "profile": "robust", "memory": 1},
    ]
    assert [title(entry, entries, "undefended") for entry in entries] == [
        "undefended",
        "fang (rule krum)",
        "fang",
        "gradcam_ae (paper)",
        "gradcam_ae (robust)",
        "gradcam_ae (robust, memory 1)",
    ]


@pytest.mark.parametrize(
    ("name", "defect"),
    [
        ("trimmed_mean", None),
        ("fedml:krum", None),
        ("none", None),
        ("fedml:trimmed_mean", "FedML drops whole clients by their sample count"),
        ("rfa", "with equal sample counts"),
        ("byzantine", "FedML draws new attackers every round"),
    ],
)
def test_known_defects_are_of_fedmls_own_types(name, defect) -> None:
    found = known_defect(name)
    assert found is None if defect is None else found.startswith(defect)
