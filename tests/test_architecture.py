"""Imports point one way, without a circle; docs/architecture.md draws the layers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Graph = Mapping[str, set[str]]

# A layer may import from those before it. Of attacks and defenses, attacks come later: some know a defense.
LAYERS = ["contract", "maths", "networks", "heatmaps", "defenses", "attacks", "recording", "hooks"]
SUITE = ["data", "models", "measures", "paper", "config", "report", "running", "speed", "studies"]
MOST_LAYERS = 12
SAME_NAME = {"__init__", "__main__", "settings", "registry"}  # one idea in several places


def modules(root: Path, *packages: str) -> dict[str, Path]:
    files = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imported(path: Path) -> Iterator[str]:
    """What a file imports anywhere: at its top, in a function, or for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def graph(found: Mapping[str, Path]) -> dict[str, set[str]]:
    """Which of these modules import which others of them."""

    def module_of(name: str) -> str:
        return name if name in found else name.rpartition(".")[0]

    return {module: {module_of(name) for name in imported(path)} & found.keys() for module, path in found.items()}


def circle(imports: Graph) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def upward(imports: Graph, package: str, layers: list[str]) -> list[str]:
    """Imports of a layer from a later one."""
    level = {f"{package}.{layer}": number for number, layer in enumerate(layers)}

    def of(module: str) -> int | None:
        return level.get(".".join(module.split(".")[:2]))

    return [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in sorted(others)
        if (own := of(module)) is not None and (its := of(other)) is not None and its > own
    ]


BOTH = graph(modules(ROOT, "fedml_gradcam_ae", "benchmark"))


def test_there_is_no_import_circle() -> None:
    assert len(BOTH) > 200
    assert circle(BOTH) == []


def test_imports_point_downward() -> None:
    assert upward(BOTH, "fedml_gradcam_ae", LAYERS) == []
    assert upward(BOTH, "benchmark", SUITE) == []


def test_the_plugin_does_not_know_the_suite() -> None:
    found = modules(ROOT, "fedml_gradcam_ae")
    assert [name for name, path in found.items() if any(i.split(".")[0] == "benchmark" for i in imported(path))] == []


def test_only_the_hooks_touch_fedml() -> None:
    touching = {name for name, path in modules(ROOT, "fedml_gradcam_ae").items() if "fedml" in tops(path)}
    assert touching
    assert {name for name in touching if not name.startswith("fedml_gradcam_ae.hooks")} == set()


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("package", ["fedml_gradcam_ae", "benchmark"])
def test_there_are_few_layers(package: str) -> None:
    layers = [path.name for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()]
    assert 0 < len(layers) <= MOST_LAYERS
    assert set(layers) == set(LAYERS if package == "fedml_gradcam_ae" else SUITE) - {"config"}


def test_the_page_shows_every_room_in_its_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^    (\w+)\[", page, re.MULTILINE) == [*LAYERS, *SUITE]


@pytest.mark.parametrize("package", ["fedml_gradcam_ae", "benchmark"])
def test_no_two_modules_have_the_same_name(package: str) -> None:
    names = [path.stem for path in modules(ROOT, package).values()]
    assert {name for name in names if names.count(name) > 1} <= SAME_NAME


def test_what_these_tests_hold_can_break(tmp_path: Path) -> None:
    package = tmp_path / "fedml_gradcam_ae"
    for layer, text in {
        "contract": "from fedml_gradcam_ae.hooks.sp import run",
        "hooks": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fedml_gradcam_ae.contract import sp",
    }.items():
        (package / layer).mkdir(parents=True)
        (package / layer / "sp.py").write_text(text)
    broken = graph(modules(tmp_path, "fedml_gradcam_ae"))
    assert set(circle(broken)) == {"fedml_gradcam_ae.contract.sp", "fedml_gradcam_ae.hooks.sp"}
    assert upward(broken, "fedml_gradcam_ae", LAYERS) == [
        "fedml_gradcam_ae.contract.sp imports fedml_gradcam_ae.hooks.sp"
    ]
