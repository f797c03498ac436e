"""One client of ten, or two of twenty, move one tensor of their honest upload: where does it cost more than 0.02?"""

import functools
import itertools
import random

import pytest

from every_tensor import BACKWARD, NETWORKS, attacked, changes, trained
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.updates import weighted_mean
from fedml_gradcam_ae.hooks.defender import hand_back

COSTS = 0.02
ATTACKERS = {10: [3], 20: [3, 11]}  # by the number of clients
TRAINING = {"local_epochs": 1, "local_learning_rate": 0.1, "local_optimizer": "sgd", "local_batch_size": 10}
SETTINGS = {
    "gradcam_ae": {"epochs": 10, "folds": 2},
    "gradcam_krum": {"probe_size": "native", "map_size": "native"},
    "deepsight": {"noise_inputs": 100},
    "fltrust": TRAINING,
    "auror": {"observe_rounds": 1},
}
RULES = {name: SETTINGS.get(name, {}) for name in registry.defenses()}
# docs/defenses.md says so in their rows: for each, how much it may cost here, and why.
ELSE = {
    "gradcam_krum": (0.05, "it follows one client's upload, and what others send decides which: some are worse"),
}


# Each rule on one network; and for all changes, on one network and with one number of clients, by diagonals.
DRAWN = [(rule, list(NETWORKS)[row % len(NETWORKS)]) for row, rule in enumerate(RULES)]
SIXTH = [
    (rule, network, clients)
    for row, rule in enumerate(RULES)
    for column, (network, clients) in enumerate(itertools.product(NETWORKS, ATTACKERS))
    if (row + column) % 6 == 0
]


@functools.cache
def federation(network):
    return trained(network)


def aggregate(rule, params, round):
    """The global model after the round, as FedML makes it of what the hook hands back; and the verdict."""
    cls = registry.defenses()[rule]
    verdict = cls(cls.Settings(**params)).judge(round)
    weights, uploads = zip(*hand_back(verdict, round), strict=True)
    return weighted_mean(uploads, [weight / sum(weights) for weight in weights]), verdict


def check(rule, network, clients, which):
    honest, (most, _) = federation(network), ELSE.get(rule, (COSTS, ""))
    round = honest.round(clients)
    clean = honest.accuracy(aggregate(rule, RULES[rule], round)[0])
    assert clean > 0.8
    for name, change in which:
        model, _ = aggregate(rule, RULES[rule], attacked(round, ATTACKERS[clients], name, change))
        assert clean - honest.accuracy(model) <= most, (name, change)


@pytest.mark.parametrize(("rule", "network"), DRAWN)
def test_no_tensor_is_a_way_around_a_rule(rule, network) -> None:
    drawn = random.Random(f"{rule} {network}")
    check(rule, network, drawn.choice(list(ATTACKERS)), drawn.sample(list(changes(federation(network).start)), 2))


@pytest.mark.long
@pytest.mark.parametrize(("rule", "network", "clients"), SIXTH)
def test_no_change_of_any_tensor_is_a_way_around_a_rule(rule, network, clients) -> None:
    ways = list(changes(federation(network).start))
    check(rule, network, clients, ways if clients == 10 else ways[::3])


@pytest.mark.parametrize("network", NETWORKS)
def test_without_the_bound_a_rule_that_keeps_everybody_is_taken_over(network) -> None:
    """The attack is one: what the bound is for."""
    honest = federation(network)
    round = honest.round(10)
    name = [name for name in honest.start if name.endswith("bias")][-1]
    taken = attacked(round, [3], name, "one number + 1e30")
    assert honest.accuracy(weighted_mean(round.uploads, [0.1] * 10)) > 0.8
    assert honest.accuracy(weighted_mean(taken.uploads, [0.1] * 10)) < 0.2
    assert honest.accuracy(weighted_mean(taken.bounded.uploads, [0.1] * 10)) > 0.8


@pytest.mark.parametrize("change", ["one number + 100", "one number + 1e30"])
@pytest.mark.parametrize("network", NETWORKS)
def test_gradcam_ae_leaves_out_a_client_whose_output_bias_alone_is_wrong(network, change) -> None:
    round = federation(network).round(10)
    name = [name for name in round.global_model if name.endswith("bias") and round.global_model[name].numel() == 10][-1]
    _, verdict = aggregate("gradcam_ae", {}, attacked(round, [3], name, change))
    assert verdict.excluded == [client == 3 for client in range(10)]
    assert verdict.reasons[3].startswith(f"its change of {name!r} is ")
    alone = {"relation_margin": 0}  # relations compare with all others: without them the others' scores stay
    _, clean = aggregate("gradcam_ae", alone, round)
    _, verdict = aggregate("gradcam_ae", alone, attacked(round, [3], name, change))
    assert [score for client, score in enumerate(verdict.scores) if client != 3] == pytest.approx(
        [score for client, score in enumerate(clean.scores) if client != 3]
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_one_tensor_moved_backward_is_held_to_three_times_the_clients_other_tensors(network) -> None:
    """Ten times its own honest step the other way is within ten medians, and undoes all that others learn there."""
    honest = federation(network)
    round = honest.round(10)
    clean = honest.accuracy(weighted_mean(round.uploads, [0.1] * 10))
    for name in round.parameters:
        taken = attacked(round, [3], name, BACKWARD)
        moved, usual = taken.bounded, float(taken.steps.usual[taken.steps.names.index(name)])
        step = float((moved.uploads[3][name] - honest.start[name]).double().norm())
        assert step <= 3.001 * float(taken.steps.proportions[3]) * usual + 1e-6
        assert clean - honest.accuracy(weighted_mean(moved.uploads, [0.1] * 10)) <= 0.03, name
