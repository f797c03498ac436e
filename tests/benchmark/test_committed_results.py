"""The results in results/published: every run is one of the configuration's, and tables follow from the raw lines."""

import csv
import json
import tarfile
from pathlib import Path

import pytest

from benchmark import config
from benchmark.measures.results import load
from benchmark.report.tables import all_tables
from benchmark.report.tables.check import compare

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "results" / "published"
CONFIGS = ROOT / "configs" / "small"
RESULTS = [path for path in sorted(PUBLISHED.iterdir()) if (path / "runs.csv").exists()]
LARGEST = "cifar10-resnet18"  # takes as long as all others together
ARCHIVES = [
    pytest.param(path, id=path.parent.name, marks=pytest.mark.long if path.parent.name == LARGEST else ())
    for path in sorted(PUBLISHED.glob("*/runs.tar.xz"))
]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_there_are_some() -> None:
    assert RESULTS


@pytest.mark.parametrize("results", RESULTS, ids=lambda path: path.name)
def test_every_number_comes_from_a_run_of_the_configuration(results, monkeypatch) -> None:
    versions = json.loads((results / "versions.json").read_text())
    monkeypatch.setattr(config, "__version__", versions["fedml_gradcam_ae"])
    configuration = config.read_config(CONFIGS / f"{results.name}.yaml")
    planned = {run.folder for run in configuration.runs()}
    finished = {row["runs"].split()[0] for row in rows(results / "runs.csv") if row["state"] == "finished"}
    assert finished
    assert finished <= planned
    for table in ("summary", "detection", *(["paper"] if configuration.paper else [])):
        named = {run for row in rows(results / f"{table}.csv") for run in row["runs"].split()}
        assert named
        assert named <= finished


@pytest.mark.parametrize("archive", ARCHIVES)
def test_tables_follow_from_the_raw_lines_beside_them(archive, tmp_path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path)
    kept = {path.stem for path in archive.parent.glob("*.csv")}
    tables = {table.name: table for table in all_tables(load(tmp_path))}
    assert {"summary", "runs"} <= kept <= tables.keys()
    for name in kept:
        assert compare(tables[name], archive.parent / f"{name}.csv") == []
