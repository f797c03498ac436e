"""Two commits of the plug-in, timed in turns on the same uploads by the benchmark of this checkout.

    python -m benchmark.speed.compare A B [-k "resnet18 and K20 and median"] [--turns 3]

prints each rule's median in A and in B and their ratio, below 1 if B is faster. The last column has the smallest and
the largest ratio of any turn: changes within this range are noise. Each commit is unpacked into a temporary folder,
which is removed in any case. The repository and the working tree are only read.

Both commits need the modules that this checkout's benchmark imports from the plug-in. A commit from before modules were
moved or renamed therefore cannot be compared with a later one. Two such commits can be compared by this program in a
checkout of one of them.
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

from benchmark.report.console import format_table

ROOT = Path(__file__).parents[2]
# This checkout's files, which replace the commit's own, and those among them that a measurement imports.
TIMED_BY = "benchmark/speed"
IMPORTING = ("bench_defenses.py", "rules.py", "uploads.py")
# Which benchmarks are timed by default, as pytest's -k.
SELECTED = "resnet18 and K20 and not fedml and not byzfl"

Seconds = Mapping[tuple[str, str], list[float]]  # of each repetition, by group of uploads and rule


class CannotCompareError(Exception):
    """An error whose message says why the commits cannot be compared."""


def compare(commits: Sequence[str], turns: int, selected: str) -> str:
    """Time two commits in turns and compare them.

    Args:
        commits: A and B.
        turns: how often each is timed.
        selected: the benchmarks, as pytest's -k.

    Returns:
        The table as text.

    Raises:
        CannotCompareError: if a commit does not exist, lacks a module that the benchmark imports, or its benchmark
            cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="compare-commits-") as folder:
        trees = [unpack(commit, Path(folder) / name) for commit, name in zip(commits, "AB", strict=True)]
        for commit, tree in zip(commits, trees, strict=True):
            check(commit, tree)
        measured: list[list[Seconds]] = [[], []]
        for turn in range(turns):
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                print(f"turn {turn + 1} of {turns}: {commits[side]}", file=sys.stderr, flush=True)
                measured[side].append(time(trees[side], selected))
    headings = ("uploads", "rule", f"A = {commits[0]} (s)", f"B = {commits[1]} (s)", "B / A", "in one turn")
    return format_table(headings, rows(*measured))


def unpack(commit: str, folder: Path) -> Path:
    """Unpack a commit, with this checkout's benchmark in place of its own.

    Args:
        commit: of this repository.
        folder: where to unpack it.

    Returns:
        The folder.

    Raises:
        CannotCompareError: if the commit does not exist.
    """
    archive = subprocess.run(["git", "archive", "--format=tar", f"{commit}^{{tree}}"], cwd=ROOT, capture_output=True)
    if archive.returncode:
        raise CannotCompareError(f"{commit!r} is no commit of this repository: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder)
    unneeded = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / TIMED_BY, folder / TIMED_BY, ignore=unneeded, dirs_exist_ok=True)
    return folder


def check(commit: str, tree: Path) -> None:
    """Check that an unpacked commit has the modules that the benchmark imports from the plug-in.

    The files are looked for, since an import may find them in another plug-in that is installed.

    Args:
        commit: of this repository, for the message.
        tree: its folder.

    Raises:
        CannotCompareError: if a module is missing.
    """
    imported = {
        node.module
        for name in IMPORTING
        for node in ast.walk(ast.parse((tree / TIMED_BY / name).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fedml_gradcam_ae")
    }
    paths = {module: tree.joinpath(*module.split(".")) for module in imported if module}
    missing = [name for name, path in paths.items() if not path.is_dir() and not path.with_suffix(".py").is_file()]
    if missing:
        raise CannotCompareError(
            f"{commit!r} has no module {', '.join(sorted(missing))}, which this checkout's benchmark imports: choose a "
            "commit from after the modules were moved to where they are now."
        )


def time(tree: Path, selected: str) -> Seconds:
    """Run the benchmark in a new process that imports the plug-in of an unpacked commit.

    Args:
        tree: the folder of the commit.
        selected: the benchmarks, as pytest's -k.

    Returns:
        The seconds of each repetition, by group of uploads and rule.

    Raises:
        CannotCompareError: if nothing is selected, the benchmark fails, or another plug-in was imported.
    """
    answer = tree / "benchmark.json"
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "benchmark/speed/bench_defenses.py", "-q", "-k", selected]
    process = subprocess.run([*command, f"--benchmark-json={answer}"], cwd=tree, capture_output=True, text=True)
    if process.returncode == 5:
        raise CannotCompareError(f"-k {selected!r} selects nothing. A benchmark is named like resnet18-K20-krum.")
    if process.returncode:
        raise CannotCompareError(f"The benchmark failed:\n{process.stdout}{process.stderr}")
    benchmarks: list[dict[str, Any]] = json.loads(answer.read_text(encoding="utf-8"))["benchmarks"]
    for one in benchmarks:
        package = Path(one["extra_info"]["package"])
        if tree.resolve() not in package.resolve().parents:
            raise CannotCompareError(f"Timed was the plug-in in {package}, not the commit's own in {tree}.")
    return {(one["group"], one["extra_info"]["rule"]): one["stats"]["data"] for one in benchmarks}


def rows(before: Sequence[Seconds], after: Sequence[Seconds]) -> list[list[str]]:
    """Return one row for each rule that both commits have.

    Args:
        before: the times of A, one mapping per turn.
        after: the times of B, one mapping per turn.
    """
    lines = []
    for key in before[0]:
        if key not in after[0]:
            continue
        both = [median(second for turn in side for second in turn[key]) for side in (before, after)]
        by_turn = [median(b[key]) / median(a[key]) for a, b in zip(before, after, strict=True)]
        numbers = [f"{both[0]:.4g}", f"{both[1]:.4g}", f"{both[1] / both[0]:.2f}"]
        lines.append([*key, *numbers, f"{min(by_turn):.2f} to {max(by_turn):.2f}"])
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Compare two commits and print the table.

    Args:
        arguments: of the command line; None: those of the process.

    Returns:
        0 if all went well, 1 if the commits cannot be compared, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmark.speed.compare", description=__doc__.splitlines()[0])
    parser.add_argument(
        "commits", nargs=2, metavar=("A", "B"), help="any revision that git accepts: a hash, a branch, HEAD~3"
    )
    parser.add_argument("-k", default=SELECTED, help="pytest's; default: %(default)s")
    parser.add_argument("--turns", type=int, default=3, help="how often each is timed; default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        print(compare(options.commits, options.turns, options.k))
    except CannotCompareError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):  # exit as after Ctrl-C, so that the temporary folder is removed
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    sys.exit(main())
