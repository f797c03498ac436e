"""FedML's keys beside a name that both have mean what they mean to FedML."""

from types import SimpleNamespace

import numpy as np
import pytest
from fedml.core.security.defense.krum_defense import KrumDefense
from pydantic import Field

from fedml_gradcam_ae import Defense
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks import builtin, configuration, shared_names
from tiny import fedml_args
from vectors import round_of

ON = {"enable_defense": True}
OWN = {name for name, cls in registry.defenses().items() if cls.__module__.startswith("fedml_gradcam_ae.")}
SAMPLES = {
    "byzantine_client_num": 1,
    "krum_param_m": 3,
    "beta": 0.1,
    "stddev": 0.6,
    "clip_threshold": 2.0,
    "sigma": 0.02,
}


def requested(**changes):
    args = fedml_args(**{**ON, "client_num_per_round": 9, "client_num_in_total": 9, **changes})
    return configuration.requested(configuration.DEFENSE, args)


def test_every_name_that_both_have_is_known() -> None:
    assert set(shared_names.SHARED) == OWN & set(builtin.DEFENSES)
    assert not set(registry.attacks()) & set(builtin.ATTACKS)  # or their keys need a translation as well


@pytest.mark.parametrize("name", shared_names.SHARED)
def test_every_key_of_fedmls_type_is_taken_over(name) -> None:
    keys = {key: SAMPLES[key] for key in builtin.DEFENSES[name].model_fields}
    found = requested(defense_type=name, **keys)
    assert found.taken == keys
    changed = set(found.settings.model_dump(exclude_unset=True))
    assert len(changed) == len(keys)


CASES = {
    "f": ({"defense_type": "krum", "byzantine_client_num": 2}, "krum", {"malicious": 2}),
    "m of 1": (
        {"defense_type": "krum", "byzantine_client_num": 2, "krum_param_m": 1},
        "krum",
        {"malicious": 2},
    ),
    "m above 1": (
        {"defense_type": "krum", "byzantine_client_num": 1, "krum_param_m": 5},
        "multi_krum",
        {"malicious": 1, "kept": 5},
    ),
    "m alone": ({"defense_type": "krum", "krum_param_m": 5}, "multi_krum", {"malicious": 0.2, "kept": 5}),
    "a share for either end": ({"defense_type": "trimmed_mean", "beta": 0.25}, "trimmed_mean", {"beta": 0.25}),
    "noise of each of nine uploads": ({"defense_type": "weak_dp", "stddev": 0.6}, "weak_dp", {"noise": 0.2}),
    "no key": ({"defense_type": "foolsgold"}, "foolsgold", {"confidence": 1.0}),
    "the plug-in's own parameters": (
        {"defense_type": "krum", "krum_param_m": 5, "defense_params": {"malicious": 3}},
        "krum",
        {"malicious": 3},
    ),
    "FedML's own": (
        {"defense_type": "fedml:krum", "byzantine_client_num": 1, "krum_param_m": 5},
        "krum",
        {"byzantine_client_num": 1, "krum_param_m": 5},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_runs(case) -> None:
    changes, name, settings = CASES[case]
    found = requested(**changes)
    assert (found.name, found.cls is None) == (name, case == "FedML's own")
    assert {key: getattr(found.settings, key) for key in settings} == pytest.approx(settings)
    assert (found.shared is not None) == (case not in ("the plug-in's own parameters", "FedML's own"))


def test_the_line_says_what_runs_in_place_of_what_and_why() -> None:
    line = requested(defense_type="krum", byzantine_client_num=1, krum_param_m=5).shared
    assert line == (
        "defense_type: krum with byzantine_client_num: 1, krum_param_m: 5 runs the plug-in's multi_krum with "
        "malicious: 1, kept: 5. FedML's own, fedml:krum, compares every pair of uploads twice, one by one."
    )


@pytest.mark.parametrize(("f", "m"), [(1, 1), (1, 4), (2, 2), (3, 1)])
def test_krum_keeps_the_uploads_that_fedmls_keeps(f, m) -> None:
    rows = np.random.default_rng(0).normal(size=(9, 6))
    rows[:f] += 20
    round = round_of(rows)
    stock = KrumDefense(SimpleNamespace(byzantine_client_num=f, krum_param_m=m))
    trained = [
        (client, {name: upload[name] for name in round.parameters}) for client, upload in enumerate(round.uploads)
    ]
    theirs = {client for client, _ in stock.defend_before_aggregation(trained)}
    weights = requested(defense_type="krum", byzantine_client_num=f, krum_param_m=m).build().judge(round).weights
    assert {client for client, weight in enumerate(weights) if weight > 0} == theirs
    assert len(theirs) == m


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"krum_param_m": 0}, "defense_args.krum_param_m: expected greater than or equal to 1, found 0"),
        ({"krum_param_m": "two"}, "defense_args.krum_param_m: expected a valid integer, found 'two'"),
        ({"byzantine_client_num": 0.2}, "defense_args.byzantine_client_num: expected a valid integer"),
        ({"byzantine_client_num": 4}, "defense_args, byzantine_client_num: 4: malicious: 4 of 9 clients .* at most 3"),
        ({"krum_param_m": 10}, "defense_args, krum_param_m: 10: kept: there are 9 clients a round, found 10"),
    ],
)
def test_a_wrong_value_is_named_by_fedmls_key(keys, message) -> None:
    with pytest.raises(SettingsError, match=message):
        requested(defense_type="krum", **keys)


def test_only_keys_of_the_two_sections_of_a_file_count(tmp_path) -> None:
    path = tmp_path / "config.yaml"
    for text, settings in [
        ("train_args: {beta: 0.9}\ndefense_args: {defense_type: trimmed_mean}", {"beta": 0.2}),
        ("defense_args: {defense_type: trimmed_mean, beta: 0.1}", {"beta": 0.1}),
        ("defense_args: {defense_type: krum}\nattack_args: {byzantine_client_num: 3}", {"malicious": 3}),
    ]:
        path.write_text(text)
        flat = {"beta": 0.1 if "beta: 0.1" in text else 0.9, "byzantine_client_num": 3}
        name = "krum" if "krum" in text else "trimmed_mean"
        found = requested(defense_type=name, yaml_config_file=str(path), **flat)
        assert {key: getattr(found.settings, key) for key in settings} == settings


def test_a_class_of_another_package_is_asked_for_its_own_parameters(monkeypatch) -> None:
    class Mine(Defense):
        class Settings(Defense.Settings):
            bound: float = Field(default=1.0, description="a bound")

    monkeypatch.setattr(registry, "_defenses", {**registry.defenses(), "cclip": Mine})
    assert requested(defense_type="cclip").cls is Mine
    with pytest.raises(SettingsError, match="but tau beside it belongs to FedML's: write defense_type: fedml:cclip"):
        requested(defense_type="cclip", tau=3.0)
    assert requested(defense_type="cclip", tau=3.0, defense_params={}).cls is Mine
