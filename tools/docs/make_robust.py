"""The tables of docs/research/robust.md, from results/published/robust, and the pictures of that page.

    python tools/docs/make_robust.py                             write the tables anew
    PYTHONPATH=. python tools/docs/make_robust.py --maps REPLAY.npz --statistics REPLAY.npz ...   draw the pictures too

The files there are what `python -m benchmark.studies.replay.judge ... --out FILE` wrote. Where defenses acted, the
tables are from folders that make_reproduction.py took over.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import make_reproduction
import numpy as np
import torch
from make_reproduction import NONE, Row, interval, markdown, read, rounded
from matplotlib.figure import Figure

from fedml_gradcam_ae.defenses.gradcam_ae.running_means import FEWEST_SAMPLES
from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import tracking
from fedml_gradcam_ae.recording import pictures
from fedml_gradcam_ae.recording.pictures import ATTACKER as RED

if TYPE_CHECKING:
    from benchmark.studies.replay.file import Replay

DOCS = Path(__file__).parents[2] / "docs"
ACCURACY = "accuracy (fraction)"
PARTITION = "partition "
NO_ATTACK = "no attack"
OURS = "gradcam_ae"
PAGE = DOCS / "research" / "robust.md"


def attacks(name: str) -> str:
    """AUROC, recall, and recall of the vote under each attack, for each partition and share of attackers."""
    rows = [row for row in read("robust", name) if row["variant"] == "robust" and row["attack"] != "none"]
    columns = list(dict.fromkeys((row["partition"], row["attackers"]) for row in rows))
    cells = {(row["attack"], row["partition"], row["attackers"]): row for row in rows}
    head = ["AUROC / recall / recall of the vote", *(f"{partition}, {share}" for partition, share in columns)]
    body = [
        [f"`{_short(attack)}`", *(_three(cells.get((attack, *column))) for column in columns)]
        for attack in dict.fromkeys(row["attack"] for row in rows)
    ]
    return markdown(head, body)


def quiet(name: str) -> str:
    """False alarms without attack, of every variant."""
    rows = [row for row in read("robust", name) if row["attack"] == "none"]
    partitions = list(dict.fromkeys(row["partition"] for row in rows))
    head = [
        NO_ATTACK,
        *(f"{partition}, {figure}" for partition in partitions for figure in ("FPR", "FPR per vote")),
    ]
    body = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        found = {row["partition"]: row for row in rows if row["variant"] == variant}
        body.append([variant, *(rounded(found[p][f], 3) for p in partitions for f in ("FPR", "FPR per vote"))])
    return markdown(head, body)


def ablation(name: str) -> str:
    """Means over all attacks of each variant's AUROC and recall."""
    rows = [row for row in read("robust", name) if row["attack"] != "none"]
    columns = list(dict.fromkeys((row["partition"], row["attackers"]) for row in rows))
    head = ["mean AUROC / recall over all attacks", *(f"{partition}, {share}" for partition, share in columns)]
    body = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        line = [variant]
        for column in columns:
            found = [
                row for row in rows if row["variant"] == variant and (row["partition"], row["attackers"]) == column
            ]
            line.append(
                " / ".join(f"{fmean(float(row[figure]) for row in found):.2f}" for figure in ("AUROC", "recall"))
            )
        body.append(line)
    return markdown(head, body)


def outcome(results: str) -> str:
    """Accuracy after the last round, and recall and FPR of the votes, where defenses acted in FedML's simulator."""
    rows = read(results, "summary")
    cells = {(row["setting"], row["attack"], row["defense"], row["metric"]): row["mean"] for row in rows}
    runs = dict.fromkeys((setting, attack, defense) for setting, attack, defense, _ in cells)
    body = [
        [
            run[0],
            f"`{run[1]}`",
            run[2],
            *(rounded(cells.get((*run, figure), ""), 3) for figure in ("accuracy", "recall", "FPR")),
        ]
        for run in runs
    ]
    return markdown(["setting", "attack", "defense", "accuracy", "recall of the votes", "FPR of the votes"], body)


@dataclass(frozen=True)
class Ended:
    """How a run with the default profile ended.

    Attributes:
        setting: what else the configuration varies, such as the partition of the data.
        attack: without its attackers.
        attackers: their number, as text; empty without attack, or where it is the same for all attacks.
        seed: of the run.
        accuracy: after the last round.
        lost: how much higher the accuracy of the same seed is, undefended and without attack.
    """

    setting: str
    attack: str
    attackers: str
    seed: str
    accuracy: float
    lost: float

    @property
    def attacked(self) -> bool:
        """Whether there was an attack."""
        return self.attack != NO_ATTACK

    @property
    def partition(self) -> str:
        """Of the data, without its settings."""
        return next(part for part in self.setting.split(", ") if part.startswith(PARTITION)).removeprefix(PARTITION)


def _ended(results: str) -> list[Ended]:
    """The runs whose seed has such an undefended one."""
    runs = [row for row in read(results, "runs") if row["state"] == "finished"]
    clean = {
        (row["setting"], row["seed"]): float(row[ACCURACY])
        for row in runs
        if (row["attack"], row["defense"]) == (NO_ATTACK, "undefended")
    }
    found = []
    for row in runs:
        if row["defense"] == OURS and (row["setting"], row["seed"]) in clean:
            accuracy = float(row[ACCURACY])
            lost = clean[row["setting"], row["seed"]] - accuracy
            found.append(Ended(row["setting"], *_apart(row["attack"]), row["seed"], accuracy, lost))
    return found


def losses(results: str) -> str:
    """What each attack leaves of the accuracy that the same seed has undefended and without attack."""
    lines: dict[tuple[str, str], dict[str, list[Ended]]] = {}
    for run in _ended(results):
        lines.setdefault((run.attack, run.attackers), {}).setdefault(run.partition, []).append(run)
    partitions = sorted({partition for cells in lines.values() for partition in cells}, reverse=True)
    head = ["attack", "attackers"]
    head += [f"{partition}, {what}" for partition in partitions for what in ("accuracy", "most lost", "seeds")]
    body = []
    for (attack, attackers), cells in lines.items():
        line = [f"`{attack}`" if attackers else attack, attackers or NONE]
        for partition in partitions:
            runs = cells.get(partition, [])
            mean = f"{fmean(run.accuracy for run in runs):.3f}" if runs else NONE
            line += [mean, f"{max(run.lost for run in runs):.3f}" if runs else NONE, str(len(runs))]
        body.append(line)
    return markdown(head, body)


KEEPS = ((("",), 0.005), (("2", "4"), 0.02), (("6", "8"), 0.05))  # attackers of 20, and what may be lost to them


def keeps(results: str) -> str:
    """What is lost at most to any attack, by the number of attackers, beside the goal."""
    runs = _ended(results)
    body = []
    for attackers, bar in KEEPS:
        own = [run for run in runs if run.attackers in attackers]
        line = ["any of them" if any(attackers) else NO_ATTACK, ", ".join(attackers) or NONE]
        for partition in ("iid", "dirichlet"):
            there = [run for run in own if run.partition == partition]
            line += [_most_lost(there, bar), f"{len(there)}, {len({run.seed for run in there})}"]
        body.append(line)
    head = ["attack", "attackers of 20", "most lost, iid", "runs, seeds", "most lost, dirichlet", "runs, seeds"]
    return markdown(head, body)


def elsewhere(results: str) -> str:
    """What is lost at most in each setting, and who was left out."""
    runs = _ended(results)
    left_out = [row for row in read(results, "summary") if (row["role"], row["decision"]) == ("acting", "left out")]
    body = []
    for setting in dict.fromkeys(run.setting for run in runs):
        there = [run for run in runs if run.setting == setting]
        quiet, attacked = ([run for run in there if run.attacked == any_attack] for any_attack in (False, True))
        votes = {
            figure: [float(row["mean"]) for row in left_out if (row["setting"], row["metric"]) == (setting, figure)]
            for figure in ("recall", "FPR")
        }
        line = [setting, f"{quiet[0].accuracy + quiet[0].lost:.3f}"]
        line += [_most_lost(quiet, KEEPS[0][1]), _most_lost(attacked, KEEPS[1][1]), str(len(attacked))]
        body.append([*line, f"{min(votes['recall']):.2f}", f"{max(votes['FPR']):.3f}"])
    head = ["setting", "undefended, no attack", "lost, no attack", "most lost to an attack", "attacks"]
    return markdown([*head, "least recall of the votes", "highest FPR of the votes"], body)


def _most_lost(runs: Sequence[Ended], bar: float) -> str:
    if not runs:
        return NONE
    worst = max(runs, key=lambda run: run.lost)
    name = f" ({', '.join(filter(None, (worst.attack, worst.attackers)))})" if worst.attacked else ""
    return f"{worst.lost:.3f}{name}; {_verdict([run.lost for run in runs], bar, low_is_good=True)}"


def _verdict(values: Sequence[float], bar: float, *, low_is_good: bool) -> str:
    """The bar, and how many miss it."""
    missed = len(values) - sum(value <= bar if low_is_good else value >= bar for value in values)
    sign = "\N{LESS-THAN OR EQUAL TO}" if low_is_good else "\N{GREATER-THAN OR EQUAL TO}"
    return f"{sign} {bar} " + (f"**missed** by {missed} of {len(values)}" if missed else "met")


def beside(results: str) -> str:
    """Under each attack the accuracy with the default profile, and with the best and the worst of the others."""
    rows = [row for row in read(results, "summary") if (row["role"], row["metric"]) == ("run", "accuracy")]
    body = []
    for setting, attack in dict.fromkeys((row["setting"], row["attack"]) for row in rows):
        same = [row for row in rows if (row["setting"], row["attack"]) == (setting, attack)]
        ended = {row["defense"]: float(row["mean"]) for row in same if row["defense"] != "undefended"}
        ours = ended.pop(OURS, None)
        if ours is not None and ended:
            best, worst = max(ended, key=ended.__getitem__), min(ended, key=ended.__getitem__)
            name = f"`{attack}`" + f", {setting}" * bool(setting)
            behind = f"{max(ended[best] - ours, 0.0):.3f}"
            others = [f"{ended[best]:.3f} ({best})", behind, f"{ended[worst]:.3f} ({worst})", str(len(ended))]
            body.append([name, f"{ours:.3f}", *others])
    return markdown(["accuracy under", OURS, "best other", "behind it", "worst other", "others"], body)


def _apart(attack: str) -> tuple[str, str]:
    """An attack's name without its attackers, and their number as text."""
    inside = re.search(r" \((.*)\)$", attack)
    if inside is None:
        return attack, ""
    keys = [key for key in inside[1].split(", ") if not key.startswith("attackers ")]
    attackers = "".join(key.removeprefix("attackers ") for key in inside[1].split(", ") if key.startswith("attackers "))
    return ", ".join([attack[: inside.start()], *keys]), attackers


@dataclass(frozen=True)
class Goal:
    """A bar that a figure of every one of its attacks is to reach.

    Attributes:
        attacks: their types.
        figure: of `benchmark.studies.replay.judge`.
        bars: by partition; FPR is to stay below its bar, everything else above. None: measured only.
        shares: of attackers, as text.
        disguised: whether those that add their `own_deviation` are meant, or those that do not.
    """

    attacks: Sequence[str]
    figure: str
    bars: Mapping[str, float | None]
    shares: Sequence[str]
    disguised: bool = False


COLLUDING = ("fang", "alie", "min_max", "min_sum", "ipm")
DISGUISED = ("constrained_perturbation", "alie", "min_max")
SMALL, MANY = ("0.1", "0.2"), ("0.3", "0.4")
MEASURED = {"iid": None, "dirichlet": None}
GOALS = (
    Goal(("constrained_perturbation", "uniform_noise"), "recall", {"iid": 0.99, "dirichlet": 0.99}, (*SMALL, *MANY)),
    Goal(("mpaf",), "recall", {"iid": 0.99, "dirichlet": 0.99}, SMALL),
    Goal(COLLUDING, "AUROC", {"iid": 0.97, "dirichlet": 0.93}, SMALL),
    Goal(COLLUDING, "recall per vote", {"iid": 0.9, "dirichlet": None}, SMALL),
    Goal(("sign_flip",), "AUROC", {"iid": 0.97, "dirichlet": 0.93}, SMALL),
    Goal(("sign_flip",), "recall per vote", {"iid": 0.9, "dirichlet": None}, SMALL),
    Goal(("mpaf", *COLLUDING), "recall per vote", MEASURED, MANY),
    Goal(("sign_flip",), "recall per vote", MEASURED, MANY),
    Goal(DISGUISED, "recall per vote", MEASURED, SMALL, disguised=True),
    Goal(DISGUISED, "recall per vote", MEASURED, MANY, disguised=True),
    Goal(("none",), "FPR per vote", {"iid": 0.01, "dirichlet": 0.01}, ("0.0",)),
)


def goals(name: str) -> str:
    """Each goal with the worst cell of its attacks, shares, data sets and networks, in either partition."""
    rows = [row for row in read("robust", name) if row["variant"] == "robust"]
    body = []
    for goal in GOALS:
        of_goal = [
            row
            for row in rows
            if row["attack"].split(",")[0] in goal.attacks
            and row["attackers"] in goal.shares
            and ("own_deviation" in row["attack"]) == goal.disguised
        ]
        if not of_goal:
            continue  # nothing was judged with so many attackers
        line = [", ".join(f"`{kind}`" for kind in goal.attacks if kind != "none") or NO_ATTACK]
        line[0] += " with `own_deviation: 1`" * goal.disguised
        judged_at = [share for share in goal.shares if any(row["attackers"] == share for row in of_goal)]
        line += [", ".join(share for share in judged_at if float(share)) or NONE, goal.figure]
        for partition, bar in goal.bars.items():
            line.append(_worst([row for row in of_goal if row["partition"] == partition], goal.figure, bar))
        seeds = sorted({int(row["federations"]) for row in of_goal})
        line.append(str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}")
        body.append(line)
    return markdown(["attack", "attackers", "figure", "iid: worst cell", "dirichlet: worst cell", "seeds"], body)


def _worst(rows: list[Row], figure: str, bar: float | None) -> str:
    if not rows:
        return NONE
    low_is_good = figure.startswith("FPR")
    values = [float(row[figure]) for row in rows]
    worst = rows[values.index(max(values) if low_is_good else min(values))]
    text = _interval(worst, figure, 3 if low_is_good else 2)
    if len(set(values)) > 1:
        attack = [] if worst["attack"] == "none" else [*_short(worst["attack"]).split(", ")[:3], worst["attackers"]]
        text += f" ({', '.join([*attack, worst['data'], worst['model']])})"
    if bar is None:
        return f"{text}; no goal"
    return f"{text}; {_verdict(values, bar, low_is_good=low_is_good)}"


def judged(name: str) -> str:
    """AUROC, and recall of the votes, of every attack: a table for each data set and network, with intervals."""
    rows = [row for row in read("robust", name) if row["variant"] == "robust"]
    parts = []
    for data, model in dict.fromkeys((row["data"], row["model"]) for row in rows):
        own = [row for row in rows if (row["data"], row["model"]) == (data, model)]
        quiet = [row for row in own if row["attack"] == "none"]
        attacked = [row for row in own if row["attack"] != "none"]
        columns = _columns(attacked)
        cells = {(row["attack"], row["partition"], row["attackers"]): row for row in attacked}
        body = []
        for attack in dict.fromkeys(row["attack"] for row in attacked):
            found = [cells.get((attack, *column)) for column in columns]
            body.append([f"`{_short(attack)}`", *map(_rank_and_vote, found)])
        alarms = "; ".join(
            f"{row['partition']} {_interval(row, 'FPR', 3)} per round, {_interval(row, 'FPR per vote', 3)} per vote"
            for row in quiet
        )
        head = ["AUROC / recall of the vote", *(f"{partition}, {share}" for partition, share in columns)]
        parts.append(f"**{data}, {model}**. FPR without attack: {alarms}.\n\n{markdown(head, body)}")
    return "\n".join(parts)


WITHOUT = "without means"


def means(name: str) -> str:
    """AUROC and recall of the vote with and without copies among means: the attacks under which anything differs."""
    rows = [row for row in read("robust", name) if row["variant"] in ("robust", WITHOUT)]
    cells = {(row["model"], row["partition"], row["attackers"], row["attack"], row["variant"]): row for row in rows}
    parts = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        attacked = [row for row in own if row["attack"] != "none"]
        columns = _columns(attacked)
        body = []
        for attack in dict.fromkeys(row["attack"] for row in attacked):
            with_means, without = (
                [_rank_and_vote(cells[model, *column, attack, variant]) for column in columns]
                for variant in ("robust", WITHOUT)
            )
            if with_means != without:
                body += [[f"`{_short(attack)}`", *with_means], ["without", *without]]
        head = ["AUROC / recall of the vote", *(f"{partition}, {share}" for partition, share in columns)]
        parts.append(f"**{model}**\n\n{markdown(head, body)}")
    return "\n".join(parts)


def _rank_and_vote(row: Row | None) -> str:
    return NONE if row is None else " / ".join(_interval(row, figure, 2) for figure in ("AUROC", "recall per vote"))


def _columns(attacked: Sequence[Row]) -> list[tuple[str, str]]:
    """Each partition and share of attackers, equal data first."""
    columns = {(row["partition"], row["attackers"]) for row in attacked}
    return sorted(columns, key=lambda column: (column[0] != "iid", column[1]))


def _short(attack: str) -> str:
    """Without how hard the attacker searched, which is the same everywhere."""
    return ", ".join(part for part in attack.split(", ") if part not in ("steps 5", "images 64"))


def _interval(row: Row, figure: str, digits: int) -> str:
    """A mean, and its 95 % interval where the seeds differ."""
    return interval([row[column] for column in (figure, f"{figure}, low", f"{figure}, high")], digits)


TABLES = {
    **make_reproduction.TABLES,
    "goals": goals,
    "judged": judged,
    "means": means,
    "outcome": outcome,
    "losses": losses,
    "keeps": keeps,
    "elsewhere": elsewhere,
    "beside": beside,
    "attacks": attacks,
    "quiet": quiet,
    "ablation": ablation,
}


def _three(row: Row | None) -> str:
    return NONE if row is None else " / ".join(rounded(row[f], 2) for f in ("AUROC", "recall", "recall per vote"))


def page(text: str) -> str:
    """The page with its tables written anew."""
    return make_reproduction.page(text, TABLES)


def picture(replay: Replay, attack: str = "alie, jitter 0.3", view: str = "64/layer3") -> Figure:
    """What six honest clients and three attackers change in the label's heat map of four images.

    Red is more evidence for the label than the global model finds at that place, blue is less; one scale per image.
    """
    case = max(number for number, found in enumerate(replay.about["cases"]) if found["name"] == attack)
    arrays = replay.rounds[0]
    rows, bad = arrays["cases"][case], arrays["malicious"][case]
    honest, attackers = np.flatnonzero(~bad)[:6], np.flatnonzero(bad)[:3]
    shown = [*honest, *attackers]
    changes = arrays[view][rows[shown]][:, :4] - arrays[view][0][:4]
    figure = Figure(figsize=(8, 4.2), dpi=110)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(4, len(shown))
    for column, client in enumerate(shown):
        grid[0, column].set_title(f"client {client}", fontsize=8, color=pictures.ATTACKER if bad[client] else "black")
        for row in range(4):
            limit = np.abs(changes[:, row]).max()
            axes = grid[row, column]
            axes.imshow(changes[column, row], cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set(color=pictures.ATTACKER if bad[client] else "#999999", linewidth=2.5 if bad[client] else 0.5)
    figure.suptitle(f"Change of four images' heat maps by nine clients; framed: attackers ({attack})", fontsize=10)
    return figure


def tracked(replays: Sequence[Replay], attacks: Sequence[str], share: float = 0.2) -> Figure:
    """How well each client's statistics follow its weights, in all rounds of some federations under some attacks."""
    figure = Figure(figsize=(8, 1.2 + 1.6 * len(replays)), dpi=110)
    figure.set_layout_engine("constrained")
    for axes, replay in zip(figure.subplots(len(replays), sharex=True, squeeze=False)[:, 0], replays, strict=True):
        named = [(case["name"], case["attackers"]) for case in replay.about["cases"]]
        for line, attack in enumerate(reversed(attacks)):
            for arrays in replay.rounds:
                case = named.index((attack, share))
                rows, bad = arrays["cases"][case].astype(int), arrays["malicious"][case]
                few = ~bad & (arrays["samples"] < FEWEST_SAMPLES * np.median(arrays["samples"]))
                stored, measured = (torch.from_numpy(arrays[name][rows]) for name in ("stored", "measured"))
                all_clients = torch.ones(len(rows), dtype=torch.bool)
                found = tracking(measured, stored, torch.from_numpy(arrays["layers"]), all_clients).numpy()
                for of, color, filled in ((~bad & ~few, "#555555", True), (few, "#555555", False), (bad, RED, True)):
                    axes.scatter(
                        found[of], [line] * of.sum(), s=16, facecolors=color if filled else "none", edgecolors=color
                    )
        axes.axvline(0, color="#999999", linewidth=0.5)
        axes.set_yticks(range(len(attacks)), list(reversed(attacks)), fontsize=8)
        axes.set_title(f"{replay.about['model']['name']}, {replay.about['data']['partition']}", fontsize=9)
    axes.set_xlabel(
        "how well stored means follow the weights (t); hollow: fewer than half the usual samples", fontsize=9
    )
    figure.suptitle("Red: attackers, 4 of 20 clients; grey: honest clients", fontsize=10)
    return figure


HIDING = ("sign_flip", "alie, jitter 1.0", "alie, own_deviation 1.0", "sign_flip, refresh_statistics True")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--maps", type=Path, help="a replay set, for the picture of heat maps in its first round")
    parser.add_argument("--statistics", type=Path, nargs="+", default=[], help="replay sets of disguises.yaml")
    options = parser.parse_args()
    if options.maps or options.statistics:
        from benchmark.studies.replay.file import load
    if options.maps:
        pictures.save(picture(load(options.maps)), DOCS / "figures" / "robust-maps.png")
    if options.statistics:
        drawn = tracked([load(path) for path in options.statistics], HIDING)
        pictures.save(drawn, DOCS / "figures" / "robust-statistics.png")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
