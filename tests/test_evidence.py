"""What the robust profile makes of rounds whose truth is known, because they are drawn here."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from fedml_gradcam_ae.contract.bounding import Steps
from fedml_gradcam_ae.defenses.gradcam_ae.evidence import Evidence, kinds_of
from fedml_gradcam_ae.defenses.gradcam_ae.map_errors import folds
from fedml_gradcam_ae.defenses.gradcam_ae.observed import Directions, Maps, Models, Observed
from fedml_gradcam_ae.defenses.gradcam_ae.running_means import tracking_scores
from fedml_gradcam_ae.networks.batchnorm import Statistics

RULES = {
    "false_alarm": 0.001,
    "copy_ratio": 0.1,
    "mean_ratio": 0.4,
    "relation_margin": 2.2,
    "memory": 6,
    "folds": 5,
    "hidden_size": 4,
    "epochs": 60,
    "learning_rate": 0.01,
    "weight_decay": 1e-5,
    "seed": 0,
}
CLIENTS, SHAPE = 20, (4, 10, 2, 2)


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def honest(seed: int, common: float = 1.0) -> torch.Tensor:
    """(clients, images, classes, height, width): a direction that all share, and each client's own noise."""
    return common * noise(*SHAPE, seed=seed + 1000) + noise(CLIENTS, *SHAPE, seed=seed)


def evidence_by(**rules) -> Evidence:
    return Evidence(kinds_of(SimpleNamespace(**{**RULES, **rules})))


def judge(changes: torch.Tensor, number: int = 1, evidence: Evidence | None = None, statistics=None, samples=None):
    reference, clients = noise(*SHAPE, seed=5), list(range(len(changes)))
    maps = Maps(reference + changes, reference)
    samples = samples or [100.0] * len(clients)
    return (evidence or evidence_by()).judge(Observed(number, clients, samples, maps, statistics))


def suspects(findings, part: str) -> list[int]:
    return torch.nonzero(findings.parts[part] > 1)[:, 0].tolist()


@pytest.mark.parametrize("attackers", [2, 8])
@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_copies_are_found_also_with_some_noise_on_each(attackers, jitter) -> None:
    changes = honest(0)
    changes[:attackers] = 0.5 * noise(*SHAPE, seed=9) + jitter * noise(attackers, *SHAPE, seed=10)
    findings = judge(changes)
    assert suspects(findings, "copies") == list(range(attackers))
    assert (findings.scores[:attackers] > 1).all()


def test_one_who_deviates_is_found_by_its_error() -> None:
    changes = honest(1)
    changes[3] += 2 * noise(*SHAPE, seed=11)
    assert suspects(judge(changes), "errors") == [3]


def test_two_who_resemble_each_other_do_not_teach_each_others_autoencoder() -> None:
    """Not near enough to be copies; trained on each other they would be reconstructed well."""
    changes = honest(2)
    changes[:2] = 4 * noise(*SHAPE, seed=12) + 0.5 * noise(2, *SHAPE, seed=13)
    findings = judge(changes)
    assert suspects(findings, "copies") == []
    assert suspects(findings, "errors") == [0, 1]


def moved(seed: int, against: Sequence[int] = (), common: float = 0.5, clients: int = 20) -> Models:
    """Updates with a common direction and own noise, of clients `against` the other way."""
    updates = noise(clients, 500, seed=seed) + common * noise(500, seed=99)
    updates[list(against)] *= -1
    directions = Directions(updates @ updates.T, torch.zeros(clients, clients))
    steps = Steps(["weight"], torch.ones(clients, 1), torch.ones(1), torch.ones(clients))
    return Models(torch.zeros(1 + clients, 1, 2), steps, torch.ones(clients, dtype=torch.bool), directions)


def judged_by_directions(evidence: Evidence, number: int, models: Models) -> Tensor:
    changes = honest(40 + number)
    maps = Maps(changes, torch.zeros_like(changes[0]))
    return evidence.judge(Observed(number, range(20), [100] * 20, maps, models=models)).parts["directions"]


def test_updates_that_go_against_all_others_are_found_in_one_round_also_of_one_client_alone() -> None:
    for attackers in ([7], [0, 1, 2, 3]):
        found = judged_by_directions(evidence_by(), 1, moved(1, attackers))
        assert found.gt(1).nonzero()[:, 0].tolist() == attackers
        assert judged_by_directions(evidence_by(), 1, moved(1)).max() < 1


def test_a_client_that_hardly_goes_along_is_found_in_some_rounds() -> None:
    evidence, found = evidence_by(), []
    for number in range(1, 7):
        models = moved(number, common=0.15)
        alone = noise(20, 500, seed=number) + 0.15 * noise(500, seed=99)
        alone[7] = noise(500, seed=200 + number)
        models = replace(models, directions=Directions(alone @ alone.T, torch.zeros(20, 20)))
        found.append(judged_by_directions(evidence, number, models))
    assert not found[0].gt(1).any()
    assert found[-1].gt(1).nonzero()[:, 0].tolist() == [7]


def test_a_client_that_goes_half_as_far_along_as_usual_is_spared_however_near_the_others_are() -> None:
    common = noise(500, seed=99)
    updates = common + 0.2 * noise(20, 500, seed=3)
    for own, suspected in ((0.9, []), (2.5, [7])):
        updates[7] = common + own * noise(500, seed=4)
        models = replace(moved(1), directions=Directions(updates @ updates.T, torch.zeros(20, 20)))
        assert judged_by_directions(evidence_by(), 1, models).gt(1).nonzero()[:, 0].tolist() == suspected


def test_where_updates_have_no_common_direction_nobody_is_suspected_for_it() -> None:
    evidence = evidence_by()
    for number in range(1, 7):
        assert judged_by_directions(evidence, number, moved(number, common=0.0)).max() <= 1


def test_a_round_in_which_nobody_agrees_suspects_nobody_of_what_an_earlier_one_showed() -> None:
    evidence = evidence_by()
    assert judged_by_directions(evidence, 1, moved(1, [7]))[7] > 1
    assert judged_by_directions(evidence, 2, moved(2, common=0.0))[7] <= 1
    assert judged_by_directions(evidence, 3, moved(3, [7]))[7] > 1


def test_directions_survive_a_restart_and_a_client_can_be_forgiven() -> None:
    through, before, after = evidence_by(), evidence_by(), evidence_by()
    judged_by_directions(through, 1, moved(1))
    judged_by_directions(before, 1, moved(1))
    after.restore(before.state())
    expected = judged_by_directions(through, 2, moved(2))
    assert torch.equal(judged_by_directions(after, 2, moved(2)), expected)
    before.forget(3)
    forgiven = judged_by_directions(before, 2, moved(2))
    assert forgiven[3] != expected[3]
    assert torch.allclose(forgiven[4:], expected[4:], atol=0.1)
    older = evidence_by()
    older.restore({"past": {1: [2.0, {3: 1.0}]}})  # of a version without directions
    assert not torch.equal(judged_by_directions(older, 2, moved(2)), expected)


def statistics(flipped=(), crafted=(), strength: float = 1.0) -> Statistics:
    """Means that moved with the weights, and noise; of `flipped` against them, of `crafted` with other weights."""
    weights = noise(CLIENTS, 300, seed=40)
    stored = strength * weights + 0.7 * noise(CLIENTS, 300, seed=41)
    weights[list(flipped)] *= -1
    weights[list(crafted)] = noise(len(crafted), 300, seed=42)
    return Statistics(stored, weights, torch.arange(300) // 100)


def evidence_of(found: Statistics) -> torch.Tensor:
    """What statistics alone hold against each client, all trusted."""
    return tracking_scores(found, torch.ones(CLIENTS, dtype=torch.bool), [100.0] * CLIENTS, RULES["false_alarm"])


@pytest.mark.parametrize("attackers", [2, 8])
@pytest.mark.parametrize("how", ["flipped", "crafted"])
def test_statistics_that_do_not_follow_the_weights_are_found(attackers, how) -> None:
    found = statistics(**{how: range(attackers)})
    assert suspects(judge(honest(7), statistics=found), "statistics") == list(range(attackers))


@pytest.mark.parametrize("attackers", [2, 8])
def test_who_agrees_in_means_only_is_found_and_not_compared_with(attackers) -> None:
    """Each adds to what was agreed on what an honest client would differ by, which hides it in heat maps."""
    agreed = statistics()
    agreed.measured[:attackers] += 4 * noise(300, seed=43)
    found = judge(honest(8), statistics=agreed)
    assert suspects(found, "means") == list(range(attackers))
    assert (found.scores[:attackers] > 1).all()
    assert suspects(found, "copies") == []
    assert suspects(judge(honest(8), statistics=statistics()), "means") == []


@pytest.mark.parametrize(("mean_ratio", "channels"), [(0.0, 300), (0.4, 63)])
def test_means_are_not_compared_if_not_asked_for_or_of_a_narrow_network(mean_ratio, channels) -> None:
    narrow = Statistics(*(values[..., :channels] for values in vars(statistics()).values()))
    evidence = evidence_by(mean_ratio=mean_ratio)
    assert "means" not in judge(honest(8), evidence=evidence, statistics=narrow).parts


def test_whoever_had_few_samples_cannot_have_moved_its_statistics() -> None:
    found = statistics(crafted=[0, 1])
    samples = [100.0] * CLIENTS
    samples[1] = 20.0
    assert suspects(judge(honest(7), statistics=found, samples=samples), "statistics") == [0]


def test_what_went_against_the_weights_is_found_among_few_and_with_few_samples() -> None:
    found = statistics(flipped=[0, 1])
    samples = [20.0 if client == 1 else 100.0 for client in range(CLIENTS)]
    assert suspects(judge(honest(7), statistics=found, samples=samples), "statistics") == [0, 1]
    some = torch.arange(CLIENTS) < 7  # where the threshold for errors is 13 spreads
    assert suspects(judge(honest(7)[some], statistics=statistics(flipped=[0]).only(some)), "statistics") == [0]


def test_a_crowd_that_reverses_does_not_widen_what_is_usual_among_unequal_clients() -> None:
    """How well statistics follow differs as much as with unequal data: cosines of 0.1 to 0.8."""
    weights = noise(CLIENTS, 300, seed=44)
    followed = torch.linspace(0.1, 1.2, CLIENTS)[torch.randperm(CLIENTS, generator=torch.manual_seed(45))]
    stored = followed[:, None] * weights + 0.7 * noise(CLIENTS, 300, seed=46)
    weights[:8] *= -1
    found = suspects(judge(honest(7), statistics=Statistics(stored, weights, torch.arange(300) // 100)), "statistics")
    assert set(found) <= set(range(8))  # nobody honest
    assert set(found) >= {client for client in range(8) if followed[client] > 0.6}


@pytest.mark.parametrize("channels", [20, 300])
def test_where_statistics_are_noise_nobody_is_suspected(channels) -> None:
    """As after a single batch of images; 200 rounds of 20."""
    for seed in range(200):
        stored, measured = noise(CLIENTS, channels, seed=1000 + seed), noise(CLIENTS, channels, seed=2000 + seed)
        found = Statistics(stored, measured, torch.arange(channels) * 3 // channels)
        assert not (evidence_of(found) >= 1).any()


def test_where_nobodys_statistics_follow_nobody_is_suspected() -> None:
    assert suspects(judge(honest(7), statistics=statistics(strength=0.0, flipped=[0])), "statistics") == []
    assert suspects(judge(honest(7), statistics=statistics(strength=-1.0, flipped=[0])), "statistics") == []


@pytest.mark.parametrize("common", [0.0, 0.3, 2.0])
def test_with_nobody_attacking_hardly_anybody_is_suspected(common) -> None:
    """40 rounds of 20 clients: by errors and by direction, 0.8 of these 800 each are to be expected."""
    evidence = evidence_by()
    found = [judge(honest(100 + number, common), number, evidence).scores for number in range(1, 41)]
    assert int((torch.stack(found) > 1).sum()) <= 8


@pytest.mark.parametrize("clients", [1, 3])
def test_too_few_to_compare_are_not_suspected(clients) -> None:
    assert judge(honest(3)[:clients]).scores.tolist() == [0] * clients


def test_when_all_upload_the_same_nobody_is_suspected() -> None:
    assert judge(torch.ones(CLIENTS, *SHAPE)).scores.max() <= 0


def test_huge_maps_do_not_hide_the_others() -> None:
    changes = honest(4)
    changes[0] *= 1e30
    changes[1] += 3 * noise(*SHAPE, seed=14)
    assert (judge(changes).scores > 1).nonzero()[:, 0].tolist() == [0, 1]


def test_folds_keep_groups_together_and_learn_from_trusted_clients_only() -> None:
    trusted = torch.tensor([True] * 6 + [False] * 2)
    held = folds([[0, 1], [2], [3], [4], [5], [6, 7]], trusted, most=3)
    assert held.shape == (3, 8)
    assert held[:, 6:].all()
    assert (held[:, :6].sum(dim=0) == 1).all()
    assert torch.equal(held[:, 0], held[:, 1])
    assert folds([[0, 1, 2, 3, 4, 5], [6, 7]], trusted, most=3) is None
