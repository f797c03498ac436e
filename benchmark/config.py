"""Benchmark configurations: which attacks run against which defenses, read from YAML and validated."""

from __future__ import annotations

import hashlib
import json
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError, field_validator, model_validator

from benchmark.data.settings import WHERE_DATA_LIE, Data
from benchmark.models.settings import Model
from benchmark.paper.claims import places
from fedml_gradcam_ae import __version__
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.interfaces import overrides
from fedml_gradcam_ae.contract.settings import Parameters, SettingsError, explain, read_settings, unknown
from fedml_gradcam_ae.contract.yaml_file import read_mapping
from fedml_gradcam_ae.hooks import builtin

Device = Literal["cpu", "cuda"]
# The settings whose value is a list itself.
ONE_VALUE = ("attackers", "at_once", "pre")


def _is_zero(value: float) -> bool:
    return value == 0


class Training(Parameters):
    """The settings of the federation, with FedML's meanings (the key `federation` of a configuration)."""

    clients: int = Field(ge=2)
    per_round: int = Field(default=0, ge=2, description="number of clients that take part in each round; default: all")
    rounds: int = Field(ge=1)
    local_epochs: int = Field(ge=1)
    optimizer: Literal["sgd", "adam"]
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(ge=1)
    # Unset, these are not serialized: the names of runs are hashes of all settings and must not change with these keys.
    drop_out: float = Field(
        default=0.0, ge=0, lt=1, exclude_if=_is_zero, description="the share of a round's uploads that are lost"
    )
    worker_momentum: float = Field(default=0.0, ge=0, lt=1, exclude_if=_is_zero, description="of the clients' updates")
    server_momentum: float = Field(default=0.0, ge=0, lt=1, exclude_if=_is_zero, description="of the server's update")

    @model_validator(mode="before")
    @classmethod
    def _all_clients_by_default(cls, values: Any) -> Any:
        """Fill in the default of `per_round`: all clients take part in each round."""
        fill = isinstance(values, dict) and "clients" in values
        return {"per_round": values["clients"], **values} if fill else values

    @model_validator(mode="after")
    def _check_clients(self) -> Training:
        if self.per_round > self.clients:
            raise ValueError(f"per_round: {self.per_round} of {self.clients} clients cannot take part in a round")
        return self


class WarmStart(Parameters):
    """The settings of central training before the federation, on images that no client gets."""

    epochs: int = Field(ge=1)
    share: float = Field(
        default=0.3, gt=0, lt=1, description="share of the training images that are kept from the clients"
    )
    learning_rate: float = Field(default=0.001, gt=0)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    # An unset seed is not serialized: the names of runs are hashes of all settings and must not change with this key.
    seed: int | None = Field(
        default=None,
        exclude_if=lambda seed: seed is None,
        description="seed of the first weights and of the order of the images, the same for all runs; null: each run's "
        "own seed",
    )


# The keys of a configuration that hold settings, and the class that validates each.
SECTIONS: dict[str, type[Parameters]] = {"data": Data, "model": Model, "federation": Training, "warm_start": WarmStart}


class Matrix(Parameters):
    """The attacks and defenses that are combined with each other, and the detectors that watch these runs."""

    attacks: list[dict[str, Any]]
    defenses: list[dict[str, Any]]
    watch: list[dict[str, Any]] = Field(
        default=[], description="defenses that judge the same uploads in every run, without acting"
    )

    @field_validator("attacks", "defenses", "watch", mode="before")
    @classmethod
    def _name_the_type(cls, value: Any) -> Any:
        """Turn plain names into mappings with a `type`, and expand lists of values into variants."""
        if not isinstance(value, list) or not value:
            raise ValueError("must be a list of types, such as [none, {type: gradcam_ae, profile: paper}]")
        entries = [{"type": entry} if isinstance(entry, str) else entry for entry in value]
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
                raise ValueError(f"each entry must be a type or a mapping with a type, found {entry!r}")
        return [variant for entry in entries for variant in variants(entry)]

    @field_validator("watch", mode="after")
    @classmethod
    def _watch_ours(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for entry in value:
            if problem := _cannot_watch(entry["type"], registry.defenses()):
                raise ValueError(problem)
        return value

    @field_validator("attacks", mode="after")
    @classmethod
    def _always_without_attack(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Put the run without attack first: what a defense costs without attackers is part of every result."""
        quiet = {"type": "none"}
        return [quiet, *(entry for entry in value if entry != quiet)]


class Config(Matrix):
    """A whole benchmark.

    One simulation is run for every combination of attack, defense, seed and each other setting that holds a list.
    """

    name: str
    data: list[Data]
    model: list[Model]
    federation: list[Training]
    warm_start: list[WarmStart | None] = Field(default=[None])
    also: list[Matrix] = Field(default=[], description="further attacks x defenses, with watchers of their own")
    vote_every: int = Field(default=3, ge=1, description="detection is measured in every n-th round (rounds)")
    threads: int = Field(
        default=1, ge=1, description="number of PyTorch's threads in each run; the last digits of sums depend on it"
    )
    device: Device = Field(default="cpu", description="cuda: FedML, heat maps and defenses compute on the first GPU")
    seeds: list[int] = Field(min_length=1)
    sweep: list[dict[str, Any]] = Field(
        default=[],
        description="defenses whose settings hold lists (grids); `recommend` takes the combination that is best on "
        "`validation_seeds`, and judges it on `seeds`",
    )
    validation_seeds: list[int] = Field(
        default=[], description="seeds that settings are chosen on, and that no other figure comes from"
    )
    paper: list[str] = Field(default=[], description="tables and figures of the paper that the report compares with")

    @field_validator("paper", mode="after")
    @classmethod
    def _known_places(cls, value: list[str]) -> list[str]:
        for place in value:
            if place not in places():
                raise ValueError(unknown(f"place {place!r} of the paper", place, places()).rstrip("."))
        return value

    @field_validator("sweep", mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        """Expand each entry's grid; an entry without a choice, or with an empty one, is a mistake."""
        if not isinstance(value, list):
            raise ValueError("must be a list of defenses, such as [{type: krum, malicious: [2, 4]}]")
        found: list[Any] = []
        for entry in value:
            if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
                raise ValueError(f"each entry must be a mapping with a type, found {entry!r}")
            if empty := [key for key, setting in entry.items() if setting == []]:
                raise ValueError(f"{', '.join(empty)} of {entry['type']} must list at least one value, found none")
            expanded = variants(entry)
            if len(expanded) < 2:
                raise ValueError(
                    f"{entry['type']} has nothing to choose from: give one of its settings as a list of values, or put "
                    "it under defenses"
                )
            found += expanded
        return found

    @model_validator(mode="after")
    def _choose_and_judge_apart(self) -> Config:
        if bool(self.sweep) != bool(self.validation_seeds):
            raise ValueError(
                "sweep and validation_seeds belong together: settings are chosen on seeds that nothing is judged on, "
                f"found {len(self.sweep)} variants under sweep and {len(self.validation_seeds)} validation seeds"
            )
        fixed = [defense for matrix in (self, *self.also) for defense in matrix.defenses]
        if twice := [variant for variant in self.sweep if variant in fixed]:
            raise ValueError(
                f"a defense is either chosen or given, found {twice[0]} under sweep and under defenses: leave it out "
                "of one of them"
            )
        if both := sorted(set(self.seeds) & set(self.validation_seeds)):
            raise ValueError(
                f"validation_seeds must not be among seeds, since settings would be judged on what they were chosen "
                f"on, found {', '.join(map(str, both))} in both"
            )
        return self

    def runs(self) -> list[Run]:
        """Return all simulations of this benchmark.

        A combination that occurs in two matrices runs once, with the watchers of the first matrix. On validation seeds
        only the defenses of `sweep` run.

        Returns:
            The runs, ordered by seed, then by data, model, federation and warm start, then by matrix.
        """
        seeds = [*self.seeds, *self.validation_seeds]
        settings = product(seeds, self.data, self.model, self.federation, self.warm_start)
        attacks = {json.dumps(attack): attack for matrix in (self, *self.also) for attack in matrix.attacks}
        swept = Matrix.model_construct(attacks=list(attacks.values()), defenses=self.sweep, watch=[])
        runs = [
            Run(
                data=data,
                model=model,
                federation=federation,
                warm_start=warm_start,
                attack=attack,
                defense=defense,
                watch=matrix.watch,
                vote_every=self.vote_every,
                threads=self.threads,
                device=self.device,
                seed=seed,
            )
            for seed, data, model, federation, warm_start in settings
            for matrix in ((self, *self.also, swept) if seed in self.seeds else (swept,))
            for attack, defense in product(matrix.attacks, matrix.defenses)
        ]
        once: dict[str, Run] = {}
        for run in runs:
            once.setdefault(run.model_copy(update={"watch": []}).folder, run)
        return list(once.values())


class Run(Parameters):
    """The settings of one simulation."""

    data: Data
    model: Model
    federation: Training
    warm_start: WarmStart | None
    attack: dict[str, Any]
    defense: dict[str, Any]
    watch: list[dict[str, Any]]
    vote_every: int
    threads: int
    # The default is not serialized: the names of runs are hashes of all settings and must not change with this key.
    device: Device = Field(default="cpu", exclude_if=lambda device: device == "cpu")
    seed: int

    @property
    def title(self) -> str:
        """Return a short description for console output: attack, defense and seed."""
        attack = "no attack" if self.attack["type"] == "none" else self.attack["type"]
        defense = "undefended" if self.defense["type"] == "none" else self.defense["type"]
        return f"{attack}, {defense}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """Return the name of the run's folder, which ends in a hash of all settings that the result depends on."""
        asked = self.model_dump(exclude={"data": set(WHERE_DATA_LIE)})
        content = json.dumps({"version": __version__, **asked}, sort_keys=True)
        parts = (self.attack["type"], self.defense["type"], f"seed{self.seed}")
        readable = "--".join(part.replace(":", "-") for part in parts)
        return f"{readable}--{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _cannot_watch(name: str, ours: dict[str, type[Any]]) -> str | None:
    """Return why a defense type cannot watch, that is judge without acting; None if it can.

    Args:
        name: the defense type.
        ours: the plug-in's registered defenses by type.
    """
    if name in ours and not overrides(ours[name], "start_for"):
        return None
    if name in ours:
        why = "it has clients start from different models"
    elif name.removeprefix("fedml:") in builtin.DEFENSES:
        why = "FedML's own types hand on a list of updates and do not name the suspected clients"
    else:
        return unknown(f"type {name!r}", name, ours).rstrip(".")
    return f"{name} can only act, not watch, since {why}: put it under defenses"


def variants(section: Any) -> list[Any]:
    """Return one mapping for each combination of the values in a mapping's lists.

    Empty lists are kept as they are. The lists under `attackers` (clients), `at_once` (a range) and `pre` (steps) count
    as one value each; several of them are a list of lists.

    Args:
        section: a mapping, or any other value.

    Returns:
        The mappings without lists, in the order of the lists' values; `[section]` if it is no mapping.

    Example:
        >>> variants({"type": "krum", "malicious": [1, 2]})
        [{'type': 'krum', 'malicious': 1}, {'type': 'krum', 'malicious': 2}]
        >>> variants({"type": "fang", "attackers": [0, 3]})
        [{'type': 'fang', 'attackers': [0, 3]}]
        >>> variants({"type": "krum", "pre": [["nnm"], ["arc", "nnm"]]})
        [{'type': 'krum', 'pre': ['nnm']}, {'type': 'krum', 'pre': ['arc', 'nnm']}]
    """
    if not isinstance(section, dict):
        return [section]
    lists = {
        key: value
        for key, value in section.items()
        if isinstance(value, list) and value and (key not in ONE_VALUE or all(isinstance(one, list) for one in value))
    }
    return [{**section, **dict(zip(lists, chosen, strict=True))} for chosen in product(*lists.values())]


def read_config(path: Path, device: Device | None = None) -> Config:
    """Read and validate a benchmark configuration.

    Args:
        path: the YAML file.
        device: "cpu" or "cuda", replaces the configuration's own device; None keeps that.

    Returns:
        The configuration.

    Raises:
        SettingsError: if the file cannot be read, is not YAML, or asks for something that does not exist.
    """
    content = read_mapping(path, example="federation")
    for name, model in SECTIONS.items():
        if content.get(name, {}) is None:
            del content[name]  # an empty key, such as `warm_start:` without a value
        elif name in content:
            where, owner = f"{path}: {name}", "a benchmark configuration"
            content[name] = [read_settings(model, variant, where, owner) for variant in variants(content[name])]
    if isinstance(content.get("also"), list):
        content["also"] = [
            read_settings(Matrix, matrix, f"{path}: also[{number}]", "a benchmark configuration")
            for number, matrix in enumerate(content["also"])
        ]
    if device is not None:
        content["device"] = device
    try:
        return Config(**content)
    except ValidationError as error:
        raise SettingsError(explain(error, str(path), "a benchmark configuration", Config.model_fields)) from None


def check_device(config: Config) -> None:
    """Check that the device exists: without a GPU, FedML would silently compute on the CPU.

    Args:
        config: the benchmark.

    Raises:
        SettingsError: if the device is cuda and PyTorch finds no GPU.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device: cuda needs a GPU that PyTorch can use, and there is none: leave it out.")
