"""The tables of docs/backdoors.md, from results/published.

    python tools/docs/make_backdoors.py

`python tools/docs/make_reproduction.py results/backdoors` takes over a results folder before; so it does
`results/relations` and `results/without-batchnorm`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import make_reproduction
from make_reproduction import NONE, Row, matrix, read, rounded, with_interval

PAGE = Path(__file__).parents[2] / "docs" / "backdoors.md"


def of_runs(results: str, metric: str) -> str:
    """One metric of the global model after the last round: attacks down, defenses across."""
    rows = [row for row in read(results, "summary") if row["role"] == "run" and row["metric"] == metric]
    return "\n".join(matrix(rows, "defense", "attack", f"{metric} under", with_interval))


def left_out(results: str) -> str:
    """The share of attackers, and of honest clients, that each defense leaves out at the votes."""
    found = [row for row in read(results, "summary") if row["role"] == "acting"]
    honest = {(row["setting"], row["attack"], row["defense"]): row for row in found if row["metric"] == "FPR"}
    attackers = {(row["setting"], row["attack"], row["defense"]): row for row in found if row["metric"] == "recall"}

    def cell(row: Row | None) -> str:
        if row is None:
            return NONE
        recall = attackers.get((row["setting"], row["attack"], row["defense"]))
        return f"{rounded(recall['mean']) if recall else NONE} ({rounded(row['mean'])})"

    return "\n".join(matrix(list(honest.values()), "defense", "attack", "left out under", cell))


def ranking(results: str) -> str:
    """The AUROC of each defense's scores."""
    rows = [row for row in read(results, "summary") if row["role"] == "acting" and row["metric"] == "AUROC"]
    return "\n".join(matrix(rows, "defense", "attack", "AUROC under"))


def detector(name: str) -> Callable[[str], str]:
    """The table of one detector that watched: networks down, attacks across, recall (FPR) of the vote."""

    def table(results: str) -> str:
        rows = [row for row in read(results, "summary") if row["role"] == "watched" and row["detector"] == name]
        recall = {(row["setting"], row["attack"]): row["mean"] for row in rows if row["metric"] == "recall"}
        honest = {(row["setting"], row["attack"]): row["mean"] for row in rows if row["metric"] == "FPR"}
        settings = sorted({setting for setting, _ in honest}, key=lambda setting: (setting.split(", ")[-1], setting))
        attacks = list(dict.fromkeys(attack for _, attack in honest))

        def cell(case: tuple[str, str]) -> str:
            if case not in honest:
                return NONE
            return f"{rounded(recall[case]) if case in recall else NONE} ({rounded(honest[case])})"

        body = [
            [f"`{setting.split(', ')[-1]}`, {PARTITIONS[setting.split(',')[0]]}"]
            + [cell((setting, attack)) for attack in attacks]
            for setting in settings
        ]
        return make_reproduction.markdown([f"`{name}`", *attacks], body)

    return table


PARTITIONS = {"partition iid": "IID", "partition dirichlet": "Dirichlet 0.5"}
TABLES = {
    "success": lambda results: of_runs(results, "attack success rate"),
    "accuracy": lambda results: of_runs(results, "accuracy"),
    "left-out": left_out,
    "AUROC": ranking,
    "watched-recall": lambda results: make_reproduction.watched(results, "recall"),
    "watched-FPR": lambda results: make_reproduction.watched(results, "FPR"),
    "ours": detector("gradcam_ae"),
    "multi-krum": detector("multi_krum"),
    "flame": detector("flame"),
    "alignins": detector("alignins"),
}


def page(text: str) -> str:
    """The page with its tables written anew."""
    return make_reproduction.page(text, TABLES)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
