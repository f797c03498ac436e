"""A benchmark configuration: what is run against what, read from YAML and checked."""

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


class Training(Parameters):
    """The federation itself, in FedML's terms."""

    clients: int = Field(ge=2)
    per_round: int = Field(default=0, ge=2, description="how many of the clients take part in each round; default: all")
    rounds: int = Field(ge=1)
    local_epochs: int = Field(ge=1)
    optimizer: Literal["sgd", "adam"]
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(ge=1)

    @model_validator(mode="before")
    @classmethod
    def _everybody(cls, values: Any) -> Any:
        fill = isinstance(values, dict) and "clients" in values
        return {"per_round": values["clients"], **values} if fill else values


class WarmStart(Parameters):
    """Training centrally before the federation, on images that no client gets."""

    epochs: int = Field(ge=1)
    share: float = Field(default=0.3, gt=0, lt=1, description="of the training images, kept apart from the clients")
    learning_rate: float = Field(default=0.001, gt=0)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    # Left out where it is not set, so that the names of runs, hashes of all settings, stay what they were without it.
    seed: int | None = Field(
        default=None,
        exclude_if=lambda seed: seed is None,
        description="of the first weights and the order of the images, the same for all runs; null: each run's own",
    )


SECTIONS: dict[str, type[Parameters]] = {"data": Data, "model": Model, "federation": Training, "warm_start": WarmStart}


class Matrix(Parameters):
    """Every attack x every defense, and who watches."""

    attacks: list[dict[str, Any]]
    defenses: list[dict[str, Any]]
    watch: list[dict[str, Any]] = Field(
        default=[], description="defenses that judge the same uploads in every run, without acting"
    )

    @field_validator("attacks", "defenses", "watch", mode="before")
    @classmethod
    def _name_the_type(cls, value: Any) -> Any:
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
        """What a defense costs when nobody attacks is part of every result."""
        quiet = {"type": "none"}
        return [quiet, *(entry for entry in value if entry != quiet)]


class Config(Matrix):
    """A whole benchmark: every attack x every defense x every seed x whatever else holds a list is one simulation."""

    name: str
    data: list[Data]
    model: list[Model]
    federation: list[Training]
    warm_start: list[WarmStart | None] = Field(default=[None])
    also: list[Matrix] = Field(default=[], description="further attacks x defenses, with watchers of their own")
    vote_every: int = Field(default=3, ge=1, description="detection is measured in every so-manieth round")
    threads: int = Field(default=1, ge=1, description="of PyTorch in each run; sums depend on it in the last digits")
    device: Device = Field(default="cpu", description="cuda: FedML, heat maps and defenses compute on the first GPU")
    seeds: list[int] = Field(min_length=1)
    paper: list[str] = Field(default=[], description="tables and figures of the paper that the report compares with")

    @field_validator("paper", mode="after")
    @classmethod
    def _known_places(cls, value: list[str]) -> list[str]:
        for place in value:
            if place not in places():
                raise ValueError(unknown(f"place {place!r} of the paper", place, places()).rstrip("."))
        return value

    def runs(self) -> list[Run]:
        """Every simulation of this benchmark; what stands in two matrices runs once, with the watchers of the first."""
        settings = product(self.seeds, self.data, self.model, self.federation, self.warm_start)
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
            for matrix in (self, *self.also)
            for attack, defense in product(matrix.attacks, matrix.defenses)
        ]
        once: dict[str, Run] = {}
        for run in runs:
            once.setdefault(run.model_copy(update={"watch": []}).folder, run)
        return list(once.values())


class Run(Parameters):
    """One simulation."""

    data: Data
    model: Model
    federation: Training
    warm_start: WarmStart | None
    attack: dict[str, Any]
    defense: dict[str, Any]
    watch: list[dict[str, Any]]
    vote_every: int
    threads: int
    # Left out where it is the default, so that the names of runs stay what they were without it.
    device: Device = Field(default="cpu", exclude_if=lambda device: device == "cpu")
    seed: int

    @property
    def title(self) -> str:
        """For a person."""
        attack = "no attack" if self.attack["type"] == "none" else self.attack["type"]
        defense = "undefended" if self.defense["type"] == "none" else self.defense["type"]
        return f"{attack}, {defense}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """A readable name that ends in the hash of everything that the result depends on."""
        asked = self.model_dump(exclude={"data": set(WHERE_DATA_LIE)})
        content = json.dumps({"version": __version__, **asked}, sort_keys=True)
        parts = (self.attack["type"], self.defense["type"], f"seed{self.seed}")
        readable = "--".join(part.replace(":", "-") for part in parts)
        return f"{readable}--{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _cannot_watch(name: str, ours: dict[str, type[Any]]) -> str | None:
    """Why a type cannot judge beside the defense that acts."""
    if name in ours and not overrides(ours[name], "start_for"):
        return None
    if name in ours:
        why = "it has clients start from different models"
    elif name.removeprefix("fedml:") in builtin.DEFENSES:
        why = "FedML's own types hand on a list of updates and do not say whom they suspect"
    else:
        return unknown(f"type {name!r}", name, ours).rstrip(".")
    return f"{name} can only act, not watch, since {why}: put it under defenses"


def variants(section: Any) -> list[Any]:
    """One mapping for each combination of the values that a mapping's lists hold; other things as they are.

    A list of attackers names clients, so it is one value.
    """
    if not isinstance(section, dict):
        return [section]
    lists = {key: value for key, value in section.items() if isinstance(value, list) and value and key != "attackers"}
    return [{**section, **dict(zip(lists, chosen, strict=True))} for chosen in product(*lists.values())]


def read_config(path: Path, device: Device | None = None) -> Config:
    """Read a benchmark configuration; `device` instead of its own, unless None.

    Raises:
        SettingsError: if the file cannot be read, is no YAML, or asks for something that does not exist.
    """
    content = read_mapping(path, example="federation")
    for name, model in SECTIONS.items():
        if content.get(name, {}) is None:
            del content[name]  # `warm_start:` with nothing behind it
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
    """Raise SettingsError for a GPU that is not there, where FedML would compute on the processor without a word."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device: cuda needs a GPU that PyTorch can use, and there is none: leave it out.")
