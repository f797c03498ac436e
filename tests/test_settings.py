from typing import Literal

import pytest
from pydantic import Field

from fedml_gradcam_ae.attacks.constrained_perturbation import ConstrainedPerturbation
from fedml_gradcam_ae.contract.settings import Parameters, SettingsError, read_settings, unknown
from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE


class Example(Parameters):
    alpha: float = Field(default=1.0, ge=0)
    steps: int
    mode: Literal["label", "argmax"] = "label"


def read(**params):
    return read_settings(Example, {"steps": 3, **params}, "defense_params", "example")


def test_defaults_are_taken_and_overridden() -> None:
    assert read(alpha=2) == Example(alpha=2.0, steps=3, mode="label")


def test_nothing_at_all_is_an_empty_mapping() -> None:
    assert read_settings(GradCAMAE.Settings, None, "defense_params", "gradcam_ae") == GradCAMAE.Settings()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"alhpa": 1},
            r"Unknown key 'alhpa' in defense_params of example. Did you mean 'alpha'\? Valid: alpha, mode, st",
        ),
        ({"alpha": "one"}, r"defense_params.alpha: expected a valid number, found 'one' \(text\)"),
        ({"alpha": "1e-4"}, r"found '1e-4' \(text\). YAML reads 1e-4 as text: write it with a point"),
        ({"alpha": True}, r"defense_params.alpha: expected a valid number, found True \(true/false\)"),
        ({"alpha": -1}, r"defense_params.alpha: expected greater than or equal to 0, found -1 \(a whole number\)"),
        ({"alpha": float("nan")}, r"defense_params.alpha: expected a finite number, found nan"),
        ({"mode": "both"}, r"defense_params.mode: expected 'label' or 'argmax', found 'both' \(text\)"),
        ({"steps": 2.5}, r"defense_params.steps: expected a valid integer, found 2.5 \(a number\)"),
        ({"steps": None}, r"defense_params.steps: expected a valid integer, found None \(nothing\)"),
    ],
)
def test_a_mistake_is_answered_with_what_would_be_right(params, message) -> None:
    with pytest.raises(SettingsError, match=message):
        read(**params)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(SettingsError, match=r"defense_params\.steps is missing: example needs it"):
        read_settings(Example, {}, "defense_params", "example")


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        read(alpha=-1, mode="x", typo=0)
    assert len(str(error.value).splitlines()) == 3


def test_params_must_be_a_mapping() -> None:
    with pytest.raises(SettingsError, match=r"defense_params must be a mapping of keys to values, found \[1\]"):
        read_settings(Example, [1], "defense_params", "example")


def test_without_a_near_name_all_are_listed() -> None:
    assert unknown("key 'zzz'", "zzz", ["b", "a"]) == "Unknown key 'zzz'. Valid: a, b."


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"vote_every": 2, "vote_threshold": 3}, "vote_threshold must be at most vote_every.*found 3 of 2"),
        ({"profile": "paper", "map_size": 2}, "map_size must be at least 4 pixels or `native`, found 2"),
        ({"probe_size": "big"}, "defense_params.probe_size"),
        ({"profile": "best"}, "defense_params.profile: expected 'robust' or 'paper', found 'best'"),
        ({"alpha": 2.0}, "alpha: of profile 'paper' only, and the profile is 'robust'"),
        ({"map_method": "layercam"}, "map_method: of profile 'paper' only. 'robust' compares signed maps"),
        ({"profile": "paper", "memory": 3}, "memory: of profile 'robust' only, and the profile is 'paper'"),
        ({"profile": "paper", "probe_size": "auto"}, "probe_size `auto` is of profile `robust` only"),
        ({"profile": "paper", "alpha": "one"}, r"defense_params.alpha: expected a valid number, found 'one'"),
    ],
)
def test_nonsense_for_gradcam_ae(params, message) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(GradCAMAE.Settings, params, "defense_params", "gradcam_ae")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"attackers": 0}, "the number of attackers must be at least 1"),
        ({"attackers": 1.5}, "a share of attackers must be above 0 and at most 1"),
        ({"attackers": []}, "at least one client id and no id twice"),
        ({"attackers": [1, 1]}, "at least one client id and no id twice"),
        ({"attackers": True}, "attack_params.attackers"),
        ({"radius": 0}, "attack_params.radius: expected greater than 0, found 0"),
        ({"poisoning_ratio": 1.2}, "attack_params.poisoning_ratio: expected less than or equal to 1, found 1.2"),
        ({"claimed_samples": -3}, "attack_params.claimed_samples: expected greater than 0, found -3"),
        ({"redraw": "always"}, "expected 'never' or 'every_round', found 'always'"),
    ],
)
def test_nonsense_for_an_attack(params, message) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(ConstrainedPerturbation.Settings, params, "attack_params", "constrained_perturbation")
