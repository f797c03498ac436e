"""Write docs/settings.md from the code: python tools/docs/make_settings.py (a test keeps the two the same)."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.settings import AttackSettings, DefenseSettings, Parameters
from fedml_gradcam_ae.hooks import builtin
from fedml_gradcam_ae.hooks.cross_silo.settings import ServerSettings
from fedml_gradcam_ae.hooks.cross_silo.transport.settings import TransportSettings
from fedml_gradcam_ae.hooks.simulation.settings import SimulationSettings
from fedml_gradcam_ae.hooks.upload_settings import UploadSettings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
INTRODUCTION = """\
# Settings

This page is written from the code by `python tools/docs/make_settings.py`; a test keeps the two the same.

A type is turned on in FedML's YAML; the plug-in's types take their parameters in one nested mapping:

```yaml
defense_args:
  enable_defense: true
  defense_type: gradcam_ae
  defense_params: {profile: paper, probe_images: 1, alpha: 1.0}
attack_args:
  enable_attack: true
  attack_type: constrained_perturbation
  attack_params: {attackers: 2, radius: 1.0}
```

An unknown type or key, a wrong kind of value, or a value out of range stops the run in `fedml.init` with a message that
says what was found and what would be right. Rounds count from 1. YAML reads `1e-4` as text: write `1.0e-4`.

FedML's own types keep their flat keys, listed at the end. Where one of FedML's types and one of the plug-in's share a
name, the name means the plug-in's, which takes FedML's keys over ([how](fedml.md#names-that-both-have)), and
`fedml:NAME` means FedML's.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## Defenses\n"]
    parts.append(
        "Every defense takes these in its `defense_params`; [defenses.md](defenses.md#composition) says what they do:"
        f"\n\n{table(DefenseSettings)}"
    )
    for name, defense in sorted(registry.defenses().items()):
        parts.append(f"### `{name}`\n\n{_summary(defense)}\n\n{table(defense.Settings, without=DefenseSettings)}")
    parts.append("## Attacks\n")
    parts.append(f"Every attack takes these in its `attack_params`:\n\n{table(AttackSettings)}")
    parts.append(
        "`attack_prob`, straight under `attack_args`, is FedML's: the probability that a round is attacked at all.\n"
    )
    for name, attack in sorted(registry.attacks().items()):
        parts.append(f"### `{name}`\n\n{_summary(attack)}\n\n{table(attack.Settings, without=AttackSettings)}")
    parts.append(
        "## Uploads\n\nThese stand straight in a section `upload_args` of the YAML and hold with every defense, and "
        "without one. In a simulation with neither attack nor defense `largest_weight` has no effect, so that it "
        f"stays FedML's own.\n\n{table(UploadSettings)}"
    )
    parts.append(
        "## Simulations\n\nThese stand straight in a section `simulation_args` of the YAML and hold with "
        "`training_type: simulation` and `backend: sp` or `MPI`, with every attack and every defense, but no momentum "
        "with `flcert`. An attack sees what the clients upload with their momentum."
        f"\n\n{table(SimulationSettings)}"
    )
    parts.append(
        "## A cross-silo server\n\nThese stand straight in a section `server_args` of the server's YAML; "
        f"[cross-silo.md](cross-silo.md) says what they do.\n\n{table(ServerSettings)}"
    )
    parts.append(
        "## A cross-silo client\n\nThese stand straight in a section `client_args` of the YAML of a client that runs "
        f"under the plug-in.\n\n{table(TransportSettings)}"
    )
    parts.append("## FedML's own types\n\nThese run as FedML 0.9.6 ships them, their defects included.\n")
    parts.append(f"| `defense_type` | keys | known defect |\n| --- | --- | --- |\n{_builtin(builtin.DEFENSES)}")
    parts.append(f"| `attack_type` | keys | known defect |\n| --- | --- | --- |\n{_builtin(builtin.ATTACKS)}")
    return "\n".join(parts)


def table(model: type[Parameters], without: type[Parameters] | None = None) -> str:
    """A Markdown table of one model's keys."""
    inherited = without.model_fields if without is not None else {}
    lines = ["| key | kind | default | meaning |", "| --- | --- | --- | --- |"]
    for key, field in model.model_fields.items():
        if key not in inherited:
            limits = "".join(f", {word} {value}" for word, value in _limits(field))
            default = "required" if field.is_required() else f"`{_yaml(field.get_default(call_default_factory=True))}`"
            lines.append(f"| `{key}` | {_kind(field.annotation)}{limits} | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def _summary(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _limits(field: Any) -> list[tuple[str, Any]]:
    words = {"Ge": ("at least", "ge"), "Gt": ("above", "gt"), "Le": ("at most", "le"), "Lt": ("below", "lt")}
    found = [(words[type(m).__name__], m) for m in field.metadata if type(m).__name__ in words]
    return [(word, getattr(metadata, attribute)) for (word, attribute), metadata in found]


def _kind(annotation: Any) -> str:
    names = {int: "whole number", float: "number", str: "text", bool: "true/false", type(None): "null"}
    if annotation in names:
        return names[annotation]
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Annotated:
        kind, *fields = typing.get_args(annotation)
        limits = [f"{word} {value}" for field in fields for word, value in _limits(field)]
        return f"{_kind(kind)} {' and '.join(limits)}".strip()
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(_kind(part) for part in typing.get_args(annotation))
    if typing.get_origin(annotation) is dict or (isinstance(annotation, type) and issubclass(annotation, Parameters)):
        return "keys and values"
    if typing.get_origin(annotation) is list:
        return f"list ({_kind(typing.get_args(annotation)[0])})"
    return str(annotation)


def _yaml(value: Any) -> str:
    words = {"None": "null", "True": "true", "False": "false"}
    return words.get(str(value), str(value))


def _builtin(types_: dict[str, type[builtin.Keys]]) -> str:
    lines = []
    for name, model in sorted(types_.items()):
        keys = ", ".join(
            f"`{key}`" + ("" if field.is_required() else f" (`{_yaml(field.default)}`)")
            for key, field in model.model_fields.items()
        )
        lines.append(f"| `{name}` | {keys} | {builtin.DEFECTS.get(name, '')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
