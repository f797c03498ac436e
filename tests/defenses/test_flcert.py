"""FLCert: groups, averages, votes and certificates against plain Python."""

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedml_gradcam_ae.defenses.flcert import FLCert, MajorityVote, certified_attackers, group_of
from tiny import state_of
from vectors import round_of, vector_of


def flcert(**params):
    return FLCert(FLCert.Settings(**params))


def start(defense, client):
    return vector_of(defense.start_for(client, {}))


def test_each_client_starts_from_the_sample_weighted_average_of_its_group() -> None:
    rows, samples = np.random.default_rng(0).normal(size=(12, 5)), np.arange(1.0, 13.0)
    defense = flcert(groups=3)
    round = round_of(rows, samples)
    assert defense.start_for(0, round.global_model) is round.global_model
    verdict = defense.judge(round)
    groups = [group_of(client, 3, 0) for client in range(12)]
    uploads = np.stack([vector_of(upload) for upload in round.uploads])
    averages = []
    for group in range(3):
        members = [client for client in range(12) if groups[client] == group]
        averages.append(np.average(uploads[members], axis=0, weights=samples[members]))
        for client in members:
            assert np.allclose(start(defense, client), averages[-1])
    assert np.allclose(vector_of(verdict.model), np.median(averages, axis=0))
    assert verdict.excluded is None


def test_a_group_without_uploads_keeps_its_model() -> None:
    defense = flcert(groups=4)
    defense.judge(round_of(torch.randn(12, 6)))
    empty = group_of(0, 4, 0)
    before = start(defense, 0)
    others = [client for client in range(12) if group_of(client, 4, 0) != empty]
    later = round_of(torch.randn(12, 6), number=2).only(others)
    defense.judge(later)
    assert np.array_equal(start(defense, 0), before)
    assert not np.array_equal(start(defense, others[0]), before)


def test_groups_depend_on_the_seed_and_the_id_alone_and_are_all_used() -> None:
    assert {group_of(client, 5, 0) for client in range(60)} == set(range(5))
    assert [group_of(client, 5, 0) for client in range(20)] != [group_of(client, 5, 1) for client in range(20)]
    assert group_of("hospital-7", 5, 0) in range(5)
    assert group_of(3, 5, 7) == int(hashlib.sha256(b"7:3").hexdigest()[:16], 16) % 5  # no salt of the process


def test_the_vote_is_a_majority_with_ties_to_the_smaller_label() -> None:
    torch.manual_seed(0)
    networks, images = [nn.Linear(3, 4) for _ in range(4)], torch.randn(300, 3)
    vote = MajorityVote(nn.Linear(3, 4), [state_of(network) for network in networks])
    with torch.no_grad():
        answers = torch.stack([network(images).argmax(1) for network in networks]).T.tolist()
        found = vote(images).argmax(1).tolist()
    expected = []
    for row in answers:
        counts = Counter(row)
        expected.append(min(label for label, count in counts.items() if count == max(counts.values())))
    assert found == expected
    assert any(sorted(Counter(row).values()) in ([2, 2], [1, 1, 1, 1]) for row in answers)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=6))
def test_the_certificate_is_the_most_turned_votes_that_never_change_the_answer(counts) -> None:
    """Each attacker moves one vote from the winner to another class: tried for every class."""

    def winner(votes):
        return max(range(len(votes)), key=lambda label: (votes[label], -label))

    first = winner(counts)
    broken = []
    for other in range(len(counts)):
        if other == first:
            continue
        votes, attackers = list(counts), 0
        while winner(votes) == first:
            attackers += 1
            votes[first] -= 1
            votes[other] += 1
        broken.append(attackers)
    assert certified_attackers(torch.tensor([counts], dtype=torch.float64)).tolist() == [min(broken) - 1]


def test_models_survive_a_restart() -> None:
    first, second = flcert(groups=2), flcert(groups=2)
    first.judge(round_of(torch.randn(6, 4)))
    second.restore(first.state())
    assert all(np.array_equal(start(first, client), start(second, client)) for client in range(6))


def test_more_groups_than_clients_are_refused() -> None:
    with pytest.raises(ValueError, match="only 3 clients a round, found 5 groups"):
        FLCert.Settings().check_clients(3)
