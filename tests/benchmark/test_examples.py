"""docs/benchmark.md adds a data set, a network, a defense and a metric: what it shows does that, in few lines."""

import csv
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "docs/benchmark.md").read_text().split("## Add a data set, a network, a defense or a metric\n")[1]
BLOCK = r":?\n\n((?: {4}.*\n|\n)+)"
BLOCKS = {path: textwrap.dedent(code).strip() for path, code in re.findall(rf"`([\w/]+\.py)`{BLOCK}", SECTION)}
SELECTION = yaml.safe_load(re.search(rf"A configuration then says{BLOCK}", SECTION)[1])
IMPORT, START, CALL = (
    re.search(r"need\n`(.*)`", SECTION)[1],
    textwrap.dedent(re.search(rf"end it with{BLOCK}", SECTION)[1]),
    re.search(r"^ {4}PYTHONPATH=CHECKOUT python mine\.py (.*)", SECTION, re.MULTILINE)[1],
)
CONFIG = {
    "name": "own",
    "federation": {
        "clients": 5,
        "per_round": 5,
        "rounds": 3,
        "local_epochs": 1,
        "optimizer": "adam",
        "learning_rate": 0.002,
        "batch_size": 20,
    },
    "attacks": [{"type": "uniform_noise", "attackers": 1}],
    "seeds": [0],
    **SELECTION,
}


def test_four_kinds_each_in_under_15_lines() -> None:
    folders = ["benchmark/data/sets", "benchmark/models/networks", "fedml_gradcam_ae/defenses", "benchmark/measures"]
    assert [str(Path(path).parent) for path in BLOCKS] == folders
    assert {path: lines for path, code in BLOCKS.items() if (lines := len(code.splitlines())) >= 15} == {}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


@pytest.mark.long
def test_in_a_copy_of_the_checkout(config, tmp_path) -> None:
    copy, out = tmp_path / "copy", tmp_path / "out"
    for package in ("benchmark", "fedml_gradcam_ae"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, code in BLOCKS.items():
        there = (copy / path).read_text() if (copy / path).exists() else ""
        assert bool(there) == (path == "benchmark/measures/metrics.py")
        (copy / path).write_text(f"{there}\n\n{code}\n")
    run([sys.executable, "-m", "benchmark", "run", config, "--out", out, "--jobs", "2"], copy)
    the_report_has_all_four(out)


@pytest.mark.long
def test_in_a_file_of_their_own(config, tmp_path) -> None:
    script, out = tmp_path / "mine.py", tmp_path / "out"
    script.write_text("\n\n\n".join([IMPORT, *BLOCKS.values(), START]))
    arguments = CALL.replace("CONFIG", str(config)).replace("DIR", str(out))
    run([sys.executable, script, *arguments.split()], tmp_path, PYTHONPATH=str(ROOT))
    the_report_has_all_four(out)


def run(command, folder, **environment) -> None:
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def the_report_has_all_four(out) -> None:
    assert len(list(out.glob("*/result.json"))) == 4
    with (out / "results/detection.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["over"] == "votes"]
    found = {row["attack"]: row["left out: missed attackers (clients)"] for row in rows if row["role"] == "acting"}
    assert found == {"no attack": "0", "uniform_noise": "0"}  # the noise is gigantic: nobody is missed
    with (out / "results/runs.csv").open(newline="") as file:
        accuracy = {(row["attack"], row["defense"]): float(row["accuracy (fraction)"]) for row in csv.DictReader(file)}
    assert accuracy["uniform_noise", "no_giants"] > 0.9 > accuracy["uniform_noise", "undefended"]
    page = (out / "report.html").read_text()
    for name in ("stripes", "one_convolution", "no_giants", "missed attackers", "How many attackers were not accused."):
        assert name in page
