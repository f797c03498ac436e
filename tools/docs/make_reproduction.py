"""The tables of docs/reproduction.md, from the results in results/published.

    python tools/docs/make_reproduction.py                               write them anew
    python tools/docs/make_reproduction.py results/cifar10-resnet18      take over a folder's results first

The raw lines of its runs come with it, in `runs.tar.xz`: unpacked into a folder, that is a results folder, which
`python -m benchmark report` and `check` read and `python -m benchmark run` goes on with.

A line `<!-- RESULTS: TABLE -->` in the page names a folder of results/published and one of the functions below; what
stands between it and the next `<!-- end -->` is replaced.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PUBLISHED = DOCS.parent / "results" / "published"
PAGE = DOCS / "reproduction.md"
BLOCK = re.compile(r"(<!-- ([\w-]+): ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
HELD_OUT = "held-out.csv"  # of `python -m benchmark.studies.held_out`
PICTURE = "scores-partition-iid-constrained-perturbation.png"
KEPT = ("summary", "runs", "detection", "recommendation")
ARCHIVE = "runs.tar.xz"
NONE = "\N{EN DASH}"
Row = dict[str, str]


def read(results: str, table: str) -> list[Row]:
    """The lines of one of its tables."""
    with (PUBLISHED / results / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rounded(text: str, digits: int = 2) -> str:
    """A figure of a table, or a dash where there is none."""
    return f"{float(text):.{digits}f}" if text else NONE


def interval(texts: Sequence[str], digits: int = 2) -> str:
    """A mean, and its 95 % interval over seeds where its ends differ."""
    mean, low, high = (rounded(text, digits) for text in texts)
    return mean if low == high else f"{mean} [{low}, {high}]"


def number(row: Row | None) -> str:
    """A mean."""
    return NONE if row is None else rounded(row["mean"])


def with_interval(row: Row | None) -> str:
    """A mean with its interval."""
    return NONE if row is None else interval([row[k] for k in ("mean", "95 % interval from", "95 % interval to")])


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def matrix(
    rows: list[Row], across: str, down: str, first: str, cell: Callable[[Row | None], str] = number
) -> Iterator[str]:
    """Means of one metric, a table for each setting, and how many seeds they are means over."""
    for setting, found in groupby(rows, key=lambda row: row["setting"]):
        cells = {(row[down], row[across]): row for row in found}
        columns = list(dict.fromkeys(column for _, column in cells))
        names = list(dict.fromkeys(name for name, _ in cells))
        body = [[f"`{name}`", *(cell(cells.get((name, column))) for column in columns)] for name in names]
        seeds = sorted({int(row["seeds"]) for row in cells.values()})
        over = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else f"{seeds[0]} seed{'s' * (seeds[0] > 1)}"
        yield ", ".join(filter(None, [setting, over])) + ":\n\n" + markdown([first, *columns], body)


def watched(results: str, metric: str) -> str:
    """One metric of those that watched undefended runs."""
    rows = [row for row in read(results, "summary") if row["role"] == "watched" and row["metric"] == metric]
    undefended = [row for row in rows if row["defense"] == "undefended"]
    return "\n".join(matrix(undefended, "attack", "detector", f"{metric} of"))


def accuracy(results: str) -> str:
    """Of every defense that acted, after the last round; attacks that met less than half of them have a table apart."""
    rows = [row for row in read(results, "summary") if row["role"] == "run" and row["metric"] == "accuracy"]
    met: dict[str, set[str]] = {}
    for row in rows:
        met.setdefault(row["attack"], set()).add(row["defense"])
    together: list[list[str]] = []
    for attack in sorted(met, key=lambda attack: len(met[attack]), reverse=True):
        if together and 2 * len(met[attack]) >= len(met[together[-1][0]]):
            together[-1].append(attack)
        else:
            together.append([attack])
    tables: list[str] = []
    for attacks in together:
        found = [row for row in rows if row["attack"] in attacks]
        tables += matrix(found, "attack", "defense", "accuracy under", with_interval)
    return "\n".join(tables)


def paper(results: str) -> str:
    """The paper's cells and ours on the same data and network: a table for each of its tables and figures."""
    parts = []
    same_question = filter(_asks_the_same, read(results, "paper"))
    for place, found in groupby(same_question, key=lambda row: row["place"]):
        lines = list(found)
        if all(row["how"] == "not run" for row in lines):
            continue
        metrics = list(dict.fromkeys(row["metric"] for row in lines))
        body = []
        for claim, same in groupby(lines, key=lambda row: row["claim"]):
            cells = list(same)
            claimed = {row["metric"]: row["paper"] for row in cells}
            body.append([claim, "paper", *(rounded(claimed.get(metric, ""), 3) for metric in metrics)])
            for (setting, how), ours in groupby(cells, key=lambda row: (row["setting"], row["how"])):
                by_metric = {row["metric"]: row for row in ours}
                open_ = "iid" not in claim and "dirichlet" not in claim and how != "not run"
                title = f"{how} ({setting})" if open_ and setting else how
                body.append(["", title, *(number(by_metric.get(metric)) for metric in metrics)])
        parts.append(f"**{place}**\n\n" + markdown(["", "", *metrics], body))
    return "\n".join(parts)


def _asks_the_same(row: Row) -> bool:
    """Whether ours was run on the network and the data that the paper names."""
    named = {row["paper's model"], row["paper's data"]} - {""}
    return not row["ours on"] or named <= set(row["ours on"].split(", "))


def held_out(results: str) -> str:
    """AUROC and ratio of errors, by what the autoencoder was trained on."""
    found = read(results, "held-out")
    ways = list(dict.fromkeys(row["trained on"] for row in found))
    ratio = "attackers' error / benign"
    body = []
    for attack, lines in groupby(found, key=lambda row: row["attack"]):
        body.append([f"`{attack}`", *(f"{row['AUROC']} ({float(row[ratio]):.2f})" for row in lines)])
    return markdown(["AUROC (ratio of errors)", *ways], body)


TABLES: dict[str, Callable[[str], str]] = {
    "recall": lambda results: watched(results, "recall"),
    "FPR": lambda results: watched(results, "FPR"),
    "AUROC": lambda results: watched(results, "AUROC"),
    "accuracy": accuracy,
    "held-out": held_out,
    "paper": paper,
}


def page(text: str, tables: Mapping[str, Callable[[str], str]] = TABLES) -> str:
    """The page with its tables written anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{tables[found[3]](found[2])}\n{found[4]}", text)


def take_over(folder: Path) -> None:
    """Copy what is kept of a results folder into results/published: tables, raw lines, versions, and one picture."""
    kept = PUBLISHED / folder.name
    kept.mkdir(parents=True, exist_ok=True)
    if (folder / HELD_OUT).exists():
        shutil.copyfile(folder / HELD_OUT, kept / HELD_OUT)
        return
    matrix = json.loads((folder / "matrix.json").read_text())
    for table in (*KEPT, *(["paper"] if matrix["paper"] else [])):
        shutil.copyfile(folder / "results" / f"{table}.csv", kept / f"{table}.csv")
    if f"{folder.name}/{PICTURE}" in PAGE.read_text(encoding="utf-8"):
        shutil.copyfile(folder / "figures" / PICTURE, kept / PICTURE)
    runs = [folder / run["folder"] for run in matrix["runs"]]
    finished = [run for run in runs if (run / "result.json").exists()]
    versions = {json.dumps(json.loads((run / "config.json").read_text())["versions"], indent=1) for run in finished}
    (kept / "versions.json").write_text("\n".join(sorted(versions)) + "\n", encoding="utf-8")
    pack(folder, finished, kept / ARCHIVE)


def pack(folder: Path, runs: Sequence[Path], archive: Path) -> None:
    """Everything that its tables follow from, as one small file; the same bytes for the same results."""

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o644
        return entry

    raw = [*folder.glob("*.json"), *(path for run in runs for path in run.glob("*.json*"))]  # no weights, no pictures
    with tarfile.open(archive, "w:xz") as tar:
        for path in sorted(raw):
            tar.add(path, str(path.relative_to(folder)), filter=anonymous)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        take_over(Path(argument))
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
