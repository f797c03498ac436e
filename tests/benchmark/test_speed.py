"""Times of the rules: what is timed, the table and the chart that become of it, and commits that are compared."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmark.speed import CLIENTS, NETWORKS, compare
from benchmark.speed.chart import spread
from benchmark.speed.measured import exponent, load
from benchmark.speed.report import main, markdown
from benchmark.speed.rules import PARAMETERS, byzfl_rules, rules
from benchmark.speed.uploads import matrix, round_of
from fedml_gradcam_ae import Defense, Verdict
from fedml_gradcam_ae.contract import registry

DOCS = Path(__file__).parents[2] / "docs"
GROWTH = {"linear": 1, "square": 2}


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


def benchmark(network, clients, rule, median):
    about = {
        "network": network,
        "clients": clients,
        "rule": rule,
        "threads": 2,
        "commit": "abc1234",
        "versions": "3.11",
    }
    stats = {"median": median, "min": 0.9 * median, "max": 1.2 * median, "rounds": 5}
    return {"stats": stats, "extra_info": {**about, "package": "/home/somebody"}}


@pytest.fixture
def answer(tmp_path):
    """pytest-benchmark's JSON: two rules everywhere, a third at one K alone."""
    found = [
        benchmark(network, clients, rule, 0.003 * clients**power)
        for network in NETWORKS
        for clients in CLIENTS
        for rule, power in GROWTH.items()
    ]
    path = tmp_path / "answer.json"
    path.write_text(json.dumps({"benchmarks": [*found, benchmark("resnet18", 20, "lonely", 0.5)]}))
    return path


def test_a_defense_that_is_registered_is_timed(monkeypatch) -> None:
    monkeypatch.setattr(registry, "_defenses", registry.defenses())

    @registry.register_defense("newcomer")
    class Newcomer(Defense):
        def __init__(self, settings) -> None: ...

        def judge(self, round):
            return Verdict(weights=[1 / len(round.uploads)] * len(round.uploads))

    timed = rules()
    assert set(registry.defenses()) <= set(timed)
    assert timed["newcomer"].build(4)(timed["newcomer"].prepare(round_of(small(), 4))).weights == [0.25] * 4


def test_every_parameter_belongs_to_some_defense() -> None:
    assert set(PARAMETERS) <= {key for cls in registry.defenses().values() for key in cls.Settings.model_fields}


@pytest.mark.parametrize("clients", CLIENTS)
def test_every_rule_can_be_built(clients) -> None:
    assert all(callable(rule.build(clients)) for rule in (rules() | byzfl_rules()).values())


def test_the_first_uploads_are_the_same_for_every_number_of_clients() -> None:
    three, five = (matrix(round_of(small(), clients)) for clients in (3, 5))
    assert torch.equal(three, five[:3])
    assert not torch.equal(five[3], five[4])


def test_the_growth_is_an_exponent(answer) -> None:
    times = load([answer])
    assert {rule: exponent(times, "resnet18", rule, CLIENTS) for rule in GROWTH} == pytest.approx(GROWTH)
    assert exponent(times, "resnet18", "lonely", CLIENTS) is None


def test_the_report_of_a_measurement(answer, tmp_path, capsys) -> None:
    main([str(answer), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "| `linear` | 0.030 | 0.060 | 0.15 | 1.0 | 0.030 | 0.060 | 0.15 | 1.0 |" in printed
    assert "| `lonely` |  | 0.50 |  |  |  |  |  |  |" in printed
    assert "home" not in (tmp_path / "out/runtime.csv").read_text()
    again = load([tmp_path / "out/runtime.csv"])
    assert again["resnet18", "square", 50].longest == pytest.approx(0.003 * 2500 * 1.2)
    assert markdown(again) + "\n" == printed


def test_the_chart_names_its_panels_and_lines(answer, tmp_path) -> None:
    main([str(answer), "--out", str(tmp_path)])
    drawing = (tmp_path / "figures/runtime.svg").read_text()
    assert {text: drawing.count(f">{text}</text>") for text in (*NETWORKS.values(), *GROWTH, "lonely", "50")} == {
        "ResNet-18": 1,
        "MobileNetV3-Large": 1,
        "linear": 2,
        "square": 2,
        "lonely": 0,
        "50": 2,
    }
    assert (tmp_path / "figures/runtime.png").stat().st_size > 1000


def test_names_move_apart_no_further_than_they_must() -> None:
    assert spread([0.1, 0.5, 0.5, 0.9], 0.1) == pytest.approx([0.1, 0.45, 0.55, 0.9])


def test_the_documentation_shows_what_is_in_its_table() -> None:
    assert markdown(load([DOCS / "runtime.csv"])) in (DOCS / "speed.md").read_text()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """One commit with a plug-in, a working tree that has changed since, and this checkout's benchmark."""
    root = tmp_path / "repository"
    timed_by = (f"benchmark/speed/{name}" for name in compare.IMPORTING)
    for name in ("fedml_gradcam_ae/rule.py", *timed_by):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("committed")
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    for path in root.rglob("*.py"):
        path.write_text("changed")
    monkeypatch.setattr(compare, "ROOT", root)
    monkeypatch.setattr(compare.tempfile, "tempdir", str(tmp_path))
    return root


def test_a_commits_own_plug_in_is_timed_by_this_checkouts_benchmark(repository, tmp_path) -> None:
    tree = compare.unpack("HEAD", tmp_path / "tree")
    assert (tree / "fedml_gradcam_ae/rule.py").read_text() == "committed"
    assert (
        (tree / "benchmark/speed/bench_defenses.py").read_text()
        == (tree / "benchmark/speed/rules.py").read_text()
        == "changed"
    )


@pytest.mark.parametrize("ending", [KeyboardInterrupt, compare.CannotCompareError("no"), None])
def test_comparing_leaves_nothing_behind(repository, tmp_path, monkeypatch, ending) -> None:
    def time(tree, selected):
        assert (tree / "fedml_gradcam_ae/rule.py").exists()
        if ending:
            raise ending
        return {("uploads", "krum"): [1.0]}

    before = subprocess.run(["git", "status", "--porcelain"], cwd=repository, capture_output=True).stdout
    monkeypatch.setattr(compare, "time", time)
    assert compare.main(["HEAD", "HEAD"]) == {KeyboardInterrupt: 130, None: 0}.get(ending, 1)
    assert list(tmp_path.iterdir()) == [repository]
    assert subprocess.run(["git", "status", "--porcelain"], cwd=repository, capture_output=True).stdout == before


def test_a_commit_that_does_not_exist(repository, capsys) -> None:
    assert compare.main(["HEAD", "nowhere"]) == 1
    assert "error: 'nowhere' is no commit of this repository" in capsys.readouterr().err


def test_a_commit_that_lacks_what_the_benchmark_imports(repository, capsys) -> None:
    lines = "from fedml_gradcam_ae.rule import Rule", "from fedml_gradcam_ae.contract.round import Round"
    (repository / "benchmark/speed/rules.py").write_text("\n".join(lines))
    assert compare.main(["HEAD", "HEAD"]) == 1
    assert capsys.readouterr().err.startswith(
        "error: 'HEAD' has no module fedml_gradcam_ae.contract.round, which this "
    )


def test_the_files_that_a_measurement_imports_are_checked() -> None:
    def imports(name):
        text = (compare.ROOT / compare.TIMED_BY / name).read_text()
        return {f"{module}.py" for module in re.findall(r"^from benchmark\.speed\.(\w+) import", text, re.MULTILINE)}

    assert set(compare.IMPORTING) == {"bench_defenses.py"}.union(*map(imports, compare.IMPORTING))
    compare.check("HEAD", compare.ROOT)


def test_the_ratio_of_two_commits() -> None:
    key = ("resnet18, K = 20", "krum")
    before = [{key: [1.0, 2.0, 3.0]}, {key: [2.0, 2.0, 2.0]}]
    after = [{key: [1.0, 1.0, 1.0], ("resnet18, K = 20", "new"): [1.0]}, {key: [1.0, 3.0, 3.0]}]
    assert compare.rows(before, after) == [[*key, "2", "1", "0.50", "0.50 to 1.50"]]
