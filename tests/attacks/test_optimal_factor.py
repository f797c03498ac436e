"""ALIE's and IPM's factor by line search, against ByzFL's."""

import byzfl
import numpy as np
import pytest

from fedml_gradcam_ae.attacks.alie import ALittleIsEnough
from fedml_gradcam_ae.attacks.ipm import InnerProductManipulation
from fedml_gradcam_ae.attacks.shared.line_search import OptimizedSettings, aggregate, largest_by_line_search
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.settings import SettingsError, read_settings
from flat import flat_round, update

BENIGN, ATTACKERS = 7, [7, 8]
RULES = {"trimmed_mean": ({"beta": 2 / 9}, byzfl.TrMean(f=2)), "median": ({}, byzfl.Median())}


def staged(make_round, seed, size=20):
    benign = np.random.default_rng(seed).normal(size=(BENIGN, size)) + 0.5
    both = np.vstack([benign, np.ones((len(ATTACKERS), size))])
    return benign, flat_round(make_round, both, start=0.3, samples=[10.0] * len(both), largest_step=None)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["trimmed_mean", "median"])
def test_optimal_ipm_is_byzfls(make_round, name, seed) -> None:
    benign, round = staged(make_round, seed)
    params, theirs = RULES[name]
    settings = {"epsilon": "optimal", "against": name, "against_params": params}
    poisoned = InnerProductManipulation(InnerProductManipulation.Settings(**settings)).poison(round, ATTACKERS)
    expected = byzfl.Optimal_InnerProductManipulation(theirs, pre_agg_list=[], f=2)(benign)
    for upload in poisoned:
        assert update(round, upload) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["trimmed_mean", "median"])
def test_optimal_alie_is_byzfls_upside_down_with_steps_of_its_own_deviation(make_round, name, seed) -> None:
    """Ours shifts downward and divides by J; these rules turn around with their input."""
    benign, round = staged(make_round, seed)
    params, theirs = RULES[name]
    settings = {"z": "optimal", "against": name, "against_params": params}
    poisoned = ALittleIsEnough(ALittleIsEnough.Settings(**settings)).poison(round, ATTACKERS)
    step = 10.0 * np.sqrt((BENIGN - 1) / BENIGN)
    expected = byzfl.Optimal_ALittleIsEnough(theirs, pre_agg_list=[], f=2, delta=float(step))(-benign)
    assert update(round, poisoned[0]) == pytest.approx(-expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_the_search_is_byzfls_for_any_objective(seed) -> None:
    generator = np.random.default_rng(seed)
    top, width = generator.uniform(0, 300), generator.uniform(1, 50)

    def objective(factor):
        return float(np.cos(factor / width) - abs(factor - top) / 100)

    attack = byzfl.Optimal_InnerProductManipulation()
    attack._evaluate = lambda _vectors, _mean, factor: objective(factor)
    best, value, step, left = attack._expansion_phase(None, None)
    assert largest_by_line_search(objective) == attack._contraction_phase(None, None, best, value, step, left)


def test_a_value_that_is_no_number_is_no_rise_and_the_search_ends() -> None:
    tried = []
    assert largest_by_line_search(lambda factor: tried.append(factor) or float("nan")) == 0
    assert len(tried) == 20


def test_without_a_rule_it_is_the_average_by_samples_which_every_step_moves(make_round) -> None:
    benign, round = staged(make_round, 0)
    settings = InnerProductManipulation.Settings(epsilon="optimal")
    poisoned = InnerProductManipulation(settings).poison(round, ATTACKERS)
    assert update(round, poisoned[0]) == pytest.approx(-10 * (2**19 - 1) * benign.mean(axis=0))


@pytest.mark.parametrize("attack", ["alie", "ipm"])
@pytest.mark.parametrize("name", ["krum", "flame", "centered_clipping", "nnm", "signguard"])
def test_a_searched_factor_moves_the_aggregate_at_least_as_far_as_none(make_round, attack, name) -> None:
    round, cls = make_round(9), registry.attacks()[attack]
    key = {"alie": "z", "ipm": "epsilon"}[attack]
    honest = np.mean([update(round, upload) for upload in round.uploads[:7]], axis=0)

    def moved(value):
        rule = OptimizedSettings(against=name).rule(2)
        settings = cls.Settings(**{key: value}, **({"against": name} if value == "optimal" else {}))
        model = aggregate(rule, make_round(9, uploads=[*round.uploads[:7], *cls(settings).poison(round, ATTACKERS)]))
        return 0.0 if model is None else np.linalg.norm(update(round, model) - honest)

    assert moved("optimal") >= moved(1e-9) - 1e-6


def test_the_rule_assumes_as_many_malicious_clients_as_there_are_unless_it_is_told() -> None:
    assert OptimizedSettings(against="krum").rule(3).settings.malicious == 3
    assert OptimizedSettings(against="krum", against_params={"malicious": 1}).rule(3).settings.malicious == 1
    assert OptimizedSettings(against="trimmed_mean", against_params={"beta": 0.3}).rule(3).settings.beta == 0.3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"against": "krun"}, r"Unknown defense_type 'krun'. Did you mean 'krum'\?"),
        ({"against": "flcert"}, "flcert keeps several models"),
        ({"against": "krum", "against_params": {"malicous": 1}}, "Unknown key 'malicous' in attack_params.against_par"),
        ({"against": "krum"}, "against is used with epsilon: optimal only, found epsilon: 0.1 and against: krum"),
        ({"against_params": {"malicious": 1}}, "against_params belong to a rule, found .* and against null"),
    ],
)
def test_a_rule_that_cannot_be_attacked_so_is_refused(params, message) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(InnerProductManipulation.Settings, params, "attack_params", "ipm")
