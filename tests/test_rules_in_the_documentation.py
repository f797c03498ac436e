"""The tables of docs/defenses.md and docs/attacks.md against the code: names, defaults, needs and answers."""

import re
from pathlib import Path

import pytest

from fedml_gradcam_ae.attacks.shared.colluders import ColludingSettings
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.interfaces import overrides
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import AssumesMalicious, AttackSettings, DefenseSettings
from fedml_gradcam_ae.defenses.shared.in_front import InFront
from fedml_gradcam_ae.heatmaps import ProbeSettings

DOCS = Path(__file__).parents[1] / "docs"
TRAINING = {
    "local_epochs": 1,
    "local_learning_rate": 0.1,
    "local_optimizer": "sgd",
    "local_weight_decay": 0.0,
    "local_batch_size": 32,
}


def table(page):
    """Cells by name, of the table that has a row for every rule."""
    rows = re.findall(r"^\| `(?!\w+_type`)(\w+)` \| (.*) \|$", (DOCS / page).read_text(), re.MULTILINE)
    split = [(name, [cell.strip() for cell in cells.split(" | ")]) for name, cells in rows]
    return {name: cells for name, cells in split if len(cells) >= 4}  # not the table of what attacks do


DEFENSES, ATTACKS = table("defenses.md"), table("attacks.md")


def own(registered):
    """The package's own; other tests may have registered theirs."""
    return {name for name, cls in registered.items() if cls.__module__.startswith("fedml_gradcam_ae.")}


def test_each_rule_has_its_row() -> None:
    assert DEFENSES.keys() == own(registry.defenses())
    assert ATTACKS.keys() == own(registry.attacks())


def as_yaml(value):
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def own_defaults(settings, cell, base):
    """Of the keys that nobody else has, or has with this default."""
    bases = [base, *([ProbeSettings] if cell.startswith("the probe's") else [])]
    bases += [ColludingSettings] if issubclass(settings, ColludingSettings) else []
    known = {key: field.default for each in bases for key, field in each.model_fields.items()}
    return {
        key: as_yaml(field.get_default(call_default_factory=True))
        for key, field in settings.model_fields.items()
        if key not in known or field.default != known[key]
    }


@pytest.mark.parametrize("name", DEFENSES)
def test_a_defenses_keys_and_defaults_are_its_settings(name) -> None:
    settings, cell = registry.defenses()[name].Settings, DEFENSES[name][1]
    assert cell.startswith("the probe's") == issubclass(settings, ProbeSettings)
    assert dict(re.findall(r"`(\w+)` `([^`]+)`", cell)) == own_defaults(settings, cell, DefenseSettings)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attacks_keys_and_defaults_are_its_settings(name) -> None:
    settings, cell = registry.attacks()[name].Settings, ATTACKS[name][1]
    assert cell.startswith("the probe's") == issubclass(settings, ProbeSettings)
    assert dict(re.findall(r"`(\w+)` `([^`]+)`", cell)) == own_defaults(settings, cell, AttackSettings)


@pytest.mark.parametrize("name", ATTACKS)
def test_what_an_attack_needs(name) -> None:
    cls, needs = registry.attacks()[name], ATTACKS[name][2]
    assert ("colluding" in needs) == issubclass(cls.Settings, ColludingSettings)
    assert ("images" in needs) == ("images" in cls.Settings.model_fields)
    assert ("the clients' training" in needs) == overrides(cls, "poison_data")


def build(name):
    cls = registry.defenses()[name]
    small = {"probe_size": "native", "epochs": 2, "noise_inputs": 20} | TRAINING
    return cls(cls.Settings(**{key: value for key, value in small.items() if key in cls.Settings.model_fields}))


@pytest.mark.parametrize("name", DEFENSES)
def test_what_a_defense_needs(name, make_round) -> None:
    cls, needs = registry.defenses()[name], DEFENSES[name][3].split(", ")
    assert ("f" in needs) == issubclass(cls.Settings, AssumesMalicious)
    assert ("history" in needs) == (overrides(cls, "state") and overrides(cls, "restore"))
    blind: Round = make_round(test_data=[])
    if "test images" in needs:
        with pytest.raises(ValueError, match="test data"):
            build(name).judge(blind)
    else:
        build(name).judge(blind)


@pytest.mark.parametrize("name", DEFENSES)
def test_what_a_defense_answers_with(name, make_round) -> None:
    verdict, answers = build(name).judge(make_round()), DEFENSES[name][4]
    if issubclass(registry.defenses()[name], InFront):
        assert answers.startswith("what the rule answers with")
        return
    assert [word for word in ("weights", "model", "flags", "scores") if word in answers.split(", ")] == [
        word
        for word, found in {
            "weights": verdict.weights,
            "model": verdict.model,
            "flags": verdict.flagged,
            "scores": verdict.scores,
        }.items()
        if found is not None
    ]


def test_the_readme_counts_them() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    links = r"\[(\d+) defenses\]\(docs/defenses.md\).*\[(\d+) attacks\]\(docs/attacks.md\)"
    counts = re.search(links, readme, re.DOTALL)
    assert counts is not None
    assert [int(count) for count in counts.groups()] == [len(own(registry.defenses())), len(own(registry.attacks()))]
