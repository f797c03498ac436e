"""Generator of the files in configs/paper: one for each table or figure of the paper and each of three scales.

    python -m benchmark.paper.configurations     rewrite all files

`table1.yaml` has the paper's own settings. `table1-small.yaml` takes one night on two cores. `table1-tiny.yaml` takes a
minute or two on digits, and only shows that everything works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "configs" / "paper"
# The name of each scale; see `SCALE`.
SCALES = ("full", "small", "tiny")
# The partitions of most experiments as YAML; `NON_IID` has the second one only.
PARTITIONS = "partition: [iid, dirichlet]"
NON_IID = "partition: dirichlet"
RESNET, MOBILENET = "resnet18", "mobilenet_v3_large"
# The defenses that the paper's tables compare.
METHODS = ("multi_krum", "auror", "trimmed_mean", "faa_dl", "gradcam_krum", "gradcam_ae")


@dataclass(frozen=True)
class Experiment:
    """One table or figure, or several that are computed from the same runs.

    Attributes:
        places: tables and figures as in claims.csv; empty if the paper gives no numbers to compare with.
        asks: the comment in the first line of the file.
        data, model: names.
        partition: the YAML keys of the partition.
        attacks: attack types with their keys as YAML; `{attackers}` is filled in.
        defenses: defense types; gradcam_ae also gets the keys of the scale.
        watch: whether the same detectors also watch the undefended runs.
        clients: the number of clients, or a YAML list of several.
        attackers: the fraction of the clients that is malicious.
    """

    places: tuple[str, ...]
    asks: str
    data: str = "cifar10"
    model: str = RESNET
    partition: str = PARTITIONS
    attacks: tuple[str, ...] = ("{{type: constrained_perturbation, attackers: {attackers}}}",)
    defenses: tuple[str, ...] = METHODS
    watch: bool = True
    clients: str = "20"
    attackers: str = "0.1"


EXPERIMENTS: Mapping[str, Experiment] = {
    "table1": Experiment(
        ("Table 1", "Figures 4-7", "Figure 15"),
        "Table 1: detection, ResNet-18 on CIFAR-10. Also Figure 4 (accuracy over rounds), 8 (errors per client), "
        "9 (heat maps) and 15 (time)",
    ),
    "table2": Experiment(("Table 2",), "Table 2: detection, ResNet-18 on GTSRB. Also Figure 5", data="gtsrb"),
    "table3": Experiment(
        ("Table 3",), "Table 3: detection, MobileNetV3-Large on CIFAR-10. Also Figure 6", model=MOBILENET
    ),
    "table4": Experiment(
        ("Table 4",), "Table 4: detection, MobileNetV3-Large on GTSRB. Also Figure 7", data="gtsrb", model=MOBILENET
    ),
    "table5": Experiment(
        ("Table 5",),
        "Table 5: what if the attacker may change only a part of the parameters",
        attacks=("{{type: constrained_perturbation, attackers: {attackers}, poisoning_ratio: [0.2, 0.5, 0.8]}}",),
        defenses=("gradcam_ae",),
    ),
    "table6": Experiment(
        ("Table 6",),
        "Table 6: other attacks",
        attacks=("{{type: mpaf, attackers: {attackers}}}", "{{type: fang, attackers: {attackers}}}"),
        defenses=("gradcam_ae",),
    ),
    "figure10": Experiment(
        ("Figure 10",),
        "Figure 10: accuracy beside FLTrust, FLCert and FLDetector",
        partition=NON_IID,
        defenses=("fltrust", "flcert", "fldetector", "gradcam_ae"),
        watch=False,
    ),
    "figure11": Experiment(
        ("Figure 11",),
        "Figure 11: accuracy where clients share fewer classes (small beta) or more",
        partition="partition: dirichlet, beta: [0.1, 0.5, 0.9]",
        defenses=("gradcam_ae",),
        watch=False,
    ),
    "figure12": Experiment((), "Figure 12: accuracy with a tenth of the clients malicious", watch=False),
    "figure13": Experiment(
        (), "Figure 13: accuracy with four tenths of the clients malicious", attackers="0.4", watch=False
    ),
    "figure14": Experiment(
        ("Figure 14",),
        "Figure 14: accuracy with 20 and with 100 clients",
        partition="partition: dirichlet, least: 2",
        defenses=("gradcam_ae",),
        clients="[20, 100]",
        watch=False,
    ),
}


@dataclass(frozen=True)
class Scale:
    """The size of an experiment, as YAML.

    Attributes:
        data: keys beside `name` and the partition, by data set; the empty name is for all others.
        training: keys of `federation` beside `clients`.
        seeds: of the runs.
        model: keys beside `name`.
        stand_in: data set and model in place of the paper's.
        warm_start: keys by model; None without a warm start.
        gradcam: keys of gradcam_ae beside its profile.
    """

    data: Mapping[str, str]
    training: str
    seeds: str
    model: str = ""
    stand_in: tuple[str, str] | None = None
    warm_start: Mapping[str, str] | None = None
    gradcam: str = ""


# The beginning of the optimizer's keys; the learning rate follows.
_ADAM = "optimizer: adam, learning_rate"
SCALE: Mapping[str, Scale] = {
    "full": Scale(
        data={"cifar10": "download: true", "gtsrb": "download: true, size: 128"},
        model="weights: imagenet",
        training=f"rounds: 100, local_epochs: 20, {_ADAM}: 0.0001, batch_size: 64",
        seeds="[0, 1, 2]",
    ),
    "small": Scale(
        data={"": "train_images: 20000, test_images: 1000"},
        warm_start={RESNET: "epochs: 4, share: 0.9", MOBILENET: "epochs: 12, share: 0.9"},
        training=f"rounds: 6, local_epochs: 1, {_ADAM}: 0.0005, batch_size: 50",
        gradcam="map_size: 56",
        seeds="[0, 1, 2]",
    ),
    "tiny": Scale(
        data={"": ""},
        stand_in=("digits", "small_cnn"),
        training=f"rounds: 3, local_epochs: 2, {_ADAM}: 0.003, batch_size: 16",
        gradcam="probe_size: 32, map_size: 32",
        seeds="[0]",
    ),
}


def text(name: str, scale: str) -> str:
    """Return the YAML of one experiment at one scale.

    Args:
        name: one of `EXPERIMENTS`.
        scale: one of `SCALES`.
    """
    asked, size = EXPERIMENTS[name], SCALE[scale]
    stem = name if scale == "full" else f"{name}-{scale}"
    data, model = size.stand_in or (asked.data, asked.model)
    # On GTSRB, the authors' code has its threshold at 1.5 standard deviations.
    alpha = "alpha: 1.5" if asked.data == "gtsrb" else ""
    gradcam = _mapping("type: gradcam_ae", "profile: paper", size.gradcam, alpha)
    defenses = [gradcam if name == "gradcam_ae" else name for name in asked.defenses]
    attacks = [f"  - {attack.format(attackers=asked.attackers)}" for attack in asked.attacks]
    lines = [
        f"# {asked.asks}.",
        f"#     python -m benchmark run configs/paper/{stem}.yaml --out results/{stem}",
        f"name: {stem}",
        f"data: {_mapping(f'name: {data}', size.data.get(data, size.data.get('', '')), asked.partition)}",
        f"model: {_mapping(f'name: {model}', size.model)}",
    ]
    if size.warm_start:
        lines.append(f"warm_start: {_mapping(size.warm_start[model])}")
    lines += [
        f"federation: {_mapping(f'clients: {asked.clients}', size.training)}",
        "attacks:",
        "  - none",
        *attacks,
        "defenses: [none]",
    ]
    if asked.watch:  # trimmed_mean flags no clients
        lines += ["watch:", *(f"  - {defense}" for defense in defenses if defense != "trimmed_mean")]
    lines += ["also:", "  - attacks:", *(f"    {line}" for line in attacks)]
    lines += ["    defenses:", *(f"      - {defense}" for defense in defenses)]
    lines.append(f"seeds: {size.seeds}")
    if asked.places:
        lines.append(f"paper: [{', '.join(asked.places)}]")
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """Return the text of every file in configs/paper by file name."""
    return {
        f"{name}{'' if scale == 'full' else f'-{scale}'}.yaml": text(name, scale)
        for name in EXPERIMENTS
        for scale in SCALES
    }


def _mapping(*keys: str) -> str:
    return f"{{{', '.join(key for key in keys if key)}}}"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, content in files().items():
        (FOLDER / file).write_text(content, encoding="utf-8")
