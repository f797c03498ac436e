"""The results in results/published: every run is one of the configuration's, and the page says what they say."""

import csv
import json
import sys
import tarfile
from pathlib import Path

import pytest

from benchmark import config
from benchmark.measures.results import load
from benchmark.report.tables import all_tables
from benchmark.report.tables.check import compare

DOCS = Path(__file__).parents[2] / "docs"
PUBLISHED = DOCS.parent / "results" / "published"
CONFIGS = DOCS.parent / "configs" / "small"
RESULTS = [path for path in sorted(PUBLISHED.iterdir()) if (path / "runs.csv").exists()]


ARCHIVES = sorted(PUBLISHED.glob("*/runs.tar.xz"))


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


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.parent.name)
def test_tables_follow_from_the_raw_lines_beside_them(archive, tmp_path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path)
    kept = {path.stem for path in archive.parent.glob("*.csv")}
    tables = {table.name: table for table in all_tables(load(tmp_path))}
    assert {"summary", "runs"} <= kept <= tables.keys()
    for name in kept:
        assert compare(tables[name], archive.parent / f"{name}.csv") == []


def test_the_page_has_the_tables_that_follow_from_them(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS.parent / "tools" / "docs"))
    import make_reproduction

    try:
        text = make_reproduction.PAGE.read_text()
        assert make_reproduction.page(text) == text, "run python tools/docs/make_reproduction.py"
    finally:
        del sys.modules["make_reproduction"]
