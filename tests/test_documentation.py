"""The documentation against the code: its examples run, what it names exists, its tables are complete."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import fedml_gradcam_ae
from fedml_gradcam_ae.contract import registry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language):
    for page in PAGES:
        for index, block in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)):
            yield pytest.param(block, id=f"{page.name}-{index}")


def test_what_is_generated_is_current() -> None:
    """In a process that has imported nothing yet, as `make docs` has it; one for all, since imports take longest."""
    programs = sorted(
        (path.stem for path in (ROOT / "tools" / "docs").glob("make_*.py")),
        key=lambda name: (name != "make_settings", name),
    )
    lines = ["import json", "found = []"]
    for program in programs:
        text = "" if program == "make_settings" else "made.PAGE.read_text()"  # that page is generated as a whole
        lines += [f"import {program} as made", f"found.append((str(made.PAGE), made.page({text})))"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join([*lines, "print(json.dumps(found))"])],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tools/docs'}"},
    )
    pages = json.loads(done.stdout.splitlines()[-1])
    assert [page for page, expected in pages if Path(page).read_text() != expected] == [], "run make docs"
    assert len(pages) == len(programs) > 5


def test_generated_tables_stand_between_their_markers() -> None:
    text = (ROOT / "docs/research/robust.md").read_text()
    assert text.count("<!-- end -->") == len(re.findall(r"^<!-- [\w-]+: [\w-]+ -->$", text, re.MULTILINE)) == 21
    assert (ROOT / "docs/fedml.md").read_text().count("| `fedml") >= 20


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_examples_are_accepted(block) -> None:
    from fedml_gradcam_ae.hooks import configuration

    flat = {key: value for section in yaml.safe_load(block).values() for key, value in section.items()}
    common = {"training_type": "simulation", "backend": "sp", "federated_optimizer": "FedAvg"}
    args = SimpleNamespace(**{**common, "client_num_in_total": 20, "client_num_per_round": 20, **flat})
    configuration.check(args)
    asked = [configuration.requested(side, args) for side in (configuration.DEFENSE, configuration.ATTACK)]
    assert any(asked)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_examples_run(block, monkeypatch) -> None:
    """Each defense that an example registers is run in a simulation."""
    from simulation import simulate

    known = registry.defenses()
    monkeypatch.setattr(registry, "_defenses", dict(known))
    monkeypatch.setattr(registry, "_attacks", registry.attacks())
    try:
        exec(compile(block, "<example>", "exec"), {"__name__": "example"})
        fedml_gradcam_ae.register()
        for name in registry.defenses().keys() - known.keys():
            simulate(enable_defense=True, defense_type=name)
    finally:
        fedml_gradcam_ae.unregister()


def test_the_readme_has_examples_of_both_kinds() -> None:
    ids = [parameter.id for language in ("yaml", "python") for parameter in blocks(language)]
    assert any(name.startswith("README") for name in ids)
    assert len(ids) >= 3


def names():
    for page in PAGES:
        for name in sorted(set(re.findall(r"`(fedml_gradcam_ae(?:\.\w+)+)(?:\(\))?`", page.read_text()))):
            yield pytest.param(name, id=f"{page.name}-{name}")


@pytest.mark.parametrize("name", names())
def test_what_a_page_names_exists(name) -> None:
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[split:]:
            found = getattr(found, attribute)
        return
    raise AssertionError(name)


def anchors(page):
    """What a link into a page can name: its headings as the forge writes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("[!R]*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"
