"""The report of a benchmark: one table and a picture of the accuracy."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from benchmark.config import Config, Run
from benchmark.metrics import detection, seconds_per_round
from benchmark.runs import Result
from fedml_gradcam_ae import pictures, registry
from fedml_gradcam_ae.hooks import builtin
from fedml_gradcam_ae.hooks.configuration import FEDML_PREFIX

HEADINGS = ("attack", "defense", "accuracy", "recall", "precision", "false-positive rate", "defense, s per round")


def write_report(config: Config, results: list[tuple[Run, Result]], out: Path) -> None:
    """Print the table; write it and the accuracy curves beside the runs."""
    table = format_table(HEADINGS, table_rows(config, results))
    note = (
        f"Accuracy is the test accuracy after round {config.federation.rounds}; recall, precision and false-positive "
        f"rate\nare of the clients left out at the votes (every {config.vote_every} rounds); all are fractions."
    )
    for defect in known_defects(config):
        note += f"\n{defect}"
    print(f"\n{table}\n\n{note}")
    (out / "table.txt").write_text(f"{table}\n\n{note}\n", encoding="utf-8")
    seed = config.seeds[0]
    curves = [
        pictures.Curve(
            title(run.defense, config.defenses, "undefended"),
            title(run.attack, config.attacks, "no attack"),
            result["accuracy"],
        )
        for run, result in results
        if run.seed == seed
    ]
    pictures.save(pictures.accuracy(curves, f"{config.name}: test accuracy, seed {seed}"), out / "accuracy.png")
    print(f"\nWritten to {out}: table.txt, accuracy.png, partition-seed*.png (what each client has), and for each")
    print("simulation a folder with rounds.jsonl (client, score, threshold, flag and vote, by round), metrics.jsonl")
    print("and result.json.")
    print("Pictures of the last vote, heat maps and reconstruction errors of every client:")
    for path in sorted(out.glob("*/*.png")):
        print(f"  {path}")


def table_rows(config: Config, results: list[tuple[Run, Result]]) -> list[list[str]]:
    """One row per attack and defense, means over the seeds."""
    rows = []
    for attack in config.attacks:
        for defense in config.defenses:
            cell = [(run, result) for run, result in results if (run.attack, run.defense) == (attack, defense)]
            found = [detection(result["rounds"], run.vote_every) for run, result in cell]
            rows.append(
                [
                    title(attack, config.attacks, "none"),
                    title(defense, config.defenses, "undefended"),
                    _mean([result["accuracy"][-1] for _, result in cell], 3),
                    *(_mean([f[key] for f in found], 2) for key in ("recall", "precision", "false_positive_rate")),
                    _mean([seconds_per_round(result["rounds"]) for _, result in cell], 2),
                ]
            )
    return rows


def format_table(headings: tuple[str, ...], rows: list[list[str]]) -> str:
    """Plain text: names to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in [list(headings), *rows]) for i in range(len(headings))]

    def line(cells: list[str]) -> str:
        pairs = list(zip(cells, widths, strict=True))
        return "  ".join([*(c.ljust(w) for c, w in pairs[:2]), *(c.rjust(w) for c, w in pairs[2:])]).rstrip()

    return "\n".join([line(list(headings)), line(["-" * width for width in widths]), *map(line, rows)])


def _mean(values: list[Any], digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.{digits}f}" if known else "-"


def title(chosen: dict[str, Any], among: list[dict[str, Any]], none: str) -> str:
    """The type, with its profile and whatever tells it from the other entries of the same type."""
    if chosen["type"] == "none":
        return none
    same = [other for other in among if other["type"] == chosen["type"]]
    telling = [key for key in chosen if any(other.get(key) != chosen[key] for other in same)]
    words = [chosen["profile"]] if "profile" in chosen else []
    words += [f"{key} {chosen[key]}" for key in telling if key != "profile"]
    return f"{chosen['type']} ({', '.join(words)})" if words else str(chosen["type"])


def known_defects(config: Config) -> list[str]:
    """A line for each of FedML's own types in the table that does not do what its name says."""
    names = [chosen["type"] for chosen in config.attacks + config.defenses]
    return [
        f"{name}, as shipped: {builtin.DEFECTS[own]}."
        for name in dict.fromkeys(names)
        if (own := name.removeprefix(FEDML_PREFIX)) in builtin.DEFECTS
        and (name != own or own not in registry.defenses() | registry.attacks())
    ]
