import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedml_gradcam_ae.attacks.vgae_mp import VGAEMP, carried_over, laplacian, similarities
from fedml_gradcam_ae.maths.graph_autoencoder import normalized, reconstruct_adjacency
from fedml_gradcam_ae.networks.images import seeded_generator
from flat import flat_round, update

SMALL = {"nodes": 12, "epochs": 10}


def poison(round, attackers, **params):
    attack = VGAEMP(VGAEMP.Settings(**{**SMALL, **params}))
    return [update(round, upload) for upload in attack.poison(round, attackers)]


def random_graph(seed, nodes=8):
    upper = np.triu(np.random.default_rng(seed).uniform(size=(nodes, nodes)), 1)
    return torch.tensor(upper + upper.T)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), radius=st.floats(0.05, 3), jitter=st.sampled_from([0.0, 0.5]))
def test_no_upload_leaves_the_ball(make_round, seed, radius, jitter) -> None:
    drawn = np.random.default_rng(seed).normal(size=(7, 40))
    benign = drawn[2:]
    mean = benign.mean(axis=0)
    furthest = np.linalg.norm(benign - mean, axis=1).max()
    for found in poison(flat_round(make_round, drawn), [0, 1], radius=radius, jitter=jitter):
        assert np.linalg.norm(found - mean) <= radius * furthest * (1 + 1e-9)


def test_only_the_weights_of_largest_variance_are_poisoned(make_round) -> None:
    drawn = np.random.default_rng(0).normal(size=(7, 60)) * np.random.default_rng(1).uniform(size=60)
    benign = drawn[2:]
    (found,) = poison(flat_round(make_round, drawn), [0], radius=100.0, eavesdropped=None)[:1]
    benign = drawn[1:]
    closest = benign[np.linalg.norm(benign - benign.mean(axis=0), axis=1).argmin()]
    nodes = set(np.argsort(benign.std(axis=0))[-12:])
    changed = set(np.flatnonzero(np.abs(found - closest) > 1e-9))
    assert changed <= nodes
    assert len(changed) > 6


def test_a_model_smaller_than_the_graph_is_a_node_altogether(make_round) -> None:
    found = poison(flat_round(make_round, np.random.default_rng(0).normal(size=(5, 4))), [0])
    assert np.isfinite(found[0]).all()


def test_the_same_graph_gives_the_benign_values_back() -> None:
    features = torch.randn(8, 3, dtype=torch.float64, generator=seeded_generator(1))
    graph = laplacian(random_graph(0))
    assert torch.allclose(carried_over(features, graph, graph), features, atol=1e-12)


def test_the_values_on_another_graph_are_those_of_explicit_eigenvectors() -> None:
    features = np.random.default_rng(1).normal(size=(8, 3))
    old, new = (laplacian(random_graph(seed)) for seed in (1, 2))
    expected = np.zeros_like(features)
    _, u = np.linalg.eigh(old.numpy())
    _, v = np.linalg.eigh(new.numpy())
    for k in range(8):
        sign = 1 if u[:, k] @ v[:, k] >= 0 else -1
        expected += sign * np.outer(v[:, k], u[:, k] @ features)
    assert carried_over(torch.tensor(features), old, new).numpy() == pytest.approx(expected)


def test_the_signs_that_lapack_gives_eigenvectors_do_not_matter(monkeypatch) -> None:
    features = torch.randn(8, 3, dtype=torch.float64, generator=seeded_generator(1))
    graphs = [laplacian(random_graph(seed)) for seed in (1, 2)]
    expected = carried_over(features, *graphs)
    plain = torch.linalg.eigh
    generator = seeded_generator(9)

    def flipped(matrix):
        values, vectors = plain(matrix)
        signs = torch.randint(2, (len(matrix),), generator=generator) * 2.0 - 1
        return torch.return_types.linalg_eigh((values, vectors * signs))

    monkeypatch.setattr(torch.linalg, "eigh", flipped)
    for _ in range(5):
        assert torch.allclose(carried_over(features, *graphs), expected, atol=1e-12)


def test_similarities_are_cosines_without_the_negative_ones() -> None:
    rows = np.random.default_rng(3).normal(size=(6, 4))
    rows[2] = 0
    found = similarities(torch.tensor(rows)).numpy()
    for i in range(6):
        for j in range(6):
            lengths = np.linalg.norm(rows[i]) * np.linalg.norm(rows[j])
            expected = 0 if i == j or lengths == 0 else max(0, rows[i] @ rows[j] / lengths)
            assert found[i, j] == pytest.approx(expected, abs=1e-12)


def test_the_normalized_adjacency_is_kipf_and_wellings() -> None:
    graph = random_graph(4).numpy() + np.eye(8)
    root = np.linalg.inv(np.sqrt(np.diag(graph.sum(axis=1))))
    assert normalized(random_graph(4)).numpy() == pytest.approx(root @ graph @ root)


def test_the_autoencoder_learns_who_is_connected() -> None:
    """Two communities of ten: what is an edge gets a higher probability than what is none."""
    community = torch.arange(20) < 10
    graph = (community[:, None] == community).double().fill_diagonal_(0)
    features = torch.eye(20, dtype=torch.float64)
    rebuilt = reconstruct_adjacency(graph, features, seeded_generator(0), epochs=200)
    pairs = ~torch.eye(20, dtype=torch.bool)
    inside, across = rebuilt[(graph == 1) & pairs], rebuilt[(graph == 0) & pairs]
    assert inside.mean() > across.mean() + 0.2
    assert inside.min() > across.max()
    assert torch.equal(rebuilt, rebuilt.T)
    assert not rebuilt.diagonal().any()
