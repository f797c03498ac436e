"""Partitions: exact cover, the distributions that they claim to have, and what cannot be had."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from benchmark import data
from benchmark.data.partition import dirichlet, partition, shards, unequal
from benchmark.data.settings import Data
from benchmark.running.partition_picture import partition as picture
from fedml_gradcam_ae.contract.settings import SettingsError

KINDS = [
    {},
    {"unequal": 0.7, "least": 2},
    {"partition": "dirichlet", "beta": 0.5, "least": 2},
    {"partition": "dirichlet", "beta": 20, "least": 3},
    {"partition": "shards", "shards_per_client": 2},
]


@given(
    kind=st.sampled_from(KINDS),
    labels=st.lists(st.integers(0, 5), min_size=60, max_size=200),
    clients=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_image_goes_to_exactly_one_client_and_the_seed_decides_to_which(kind, labels, clients, seed) -> None:
    asked = Data(**kind)
    parts = partition(torch.tensor(labels), clients, asked, seed)
    assert len(parts) == clients
    assert sorted(position for part in parts for position in part) == list(range(len(labels)))
    sizes = [len(part) for part in parts]
    assert min(sizes) >= (asked.least or 1)
    if asked.partition == "iid" and asked.unequal is None:
        assert max(sizes) - min(sizes) <= 1
    if asked.partition == "shards":
        assert max(sizes) - min(sizes) <= 2
    assert partition(torch.tensor(labels), clients, asked, seed) == parts


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_gives_another_partition(kind) -> None:
    labels = torch.arange(300) % 5
    first, other = (partition(labels, 5, Data(**kind), seed) for seed in (0, 1))
    assert [sorted(part) for part in first] != [sorted(part) for part in other]


def shares_of_a_class(beta):
    """Client 0's share of class 0, over many partitions."""
    labels = torch.arange(4000) % 2
    parts = [dirichlet(labels, 5, beta, 2, np.random.default_rng(seed))[0] for seed in range(400)]
    return [float((labels[part] == 0).sum()) / 2000 for part in parts]


@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_shares_of_a_class_are_dirichlet_distributed(beta) -> None:
    drawn = np.random.default_rng(1).dirichlet([beta] * 5, size=20_000)[:, 0]
    found = shares_of_a_class(beta)
    assert kstest(found, drawn).pvalue > 0.01
    assert kstest(found, drawn**1.3).pvalue < 0.001  # the test does tell distributions apart


def test_a_small_beta_leaves_a_class_with_few_clients() -> None:
    labels = torch.arange(5000) % 10
    largest = {}
    for beta in (0.1, 100):
        parts = dirichlet(labels, 10, beta, 10, np.random.default_rng(0))
        counts = torch.stack([torch.bincount(labels[part], minlength=10) for part in parts])
        largest[beta] = float(counts.max(dim=0).values.double().mean()) / 500
    assert largest[0.1] > 0.5
    assert largest[100] < 0.2


def test_with_two_shards_of_a_sorted_set_a_client_sees_two_classes_at_most() -> None:
    labels = torch.arange(1000) % 10
    parts = shards(labels, 20, 2, np.random.default_rng(0))  # 40 shards of 25, four to a class
    assert [len(part) for part in parts] == [50] * 20
    assert {len(labels[part].unique()) for part in parts} == {1, 2}
    assert len({tuple(sorted(part)) for part in parts}) == 20


def test_unequal_sizes_are_log_normal() -> None:
    sizes = np.array([len(part) for part in unequal(400_000, 400, 0.5, 2, np.random.default_rng(0))])
    logs = np.log(sizes)
    assert logs.std() == pytest.approx(0.5, abs=0.05)
    assert kstest((logs - logs.mean()) / 0.5, "norm").pvalue > 0.01


def test_unequal_parts_are_iid_in_their_labels() -> None:
    labels = torch.arange(20_000) % 4
    for part in unequal(20_000, 5, 0.5, 500, np.random.default_rng(0)):
        shares = torch.bincount(labels[part]).double() / len(part)
        assert (shares - 0.25).abs().max() < 4 * (0.25 * 0.75 / len(part)) ** 0.5


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({}, "30 clients cannot share 20 images"),
        ({"partition": "shards"}, "30 clients with 2 shards each need at least 60 images, found 20"),
        ({"partition": "dirichlet"}, "30 clients with at least 10 images each need 300, found 20: lower data.least"),
        ({"unequal": 1.0, "least": 3}, "30 clients with at least 3 images each need 90, found 20"),
    ],
)
def test_more_clients_than_images_can_serve_are_refused(kind, message) -> None:
    with pytest.raises(SettingsError, match=message):
        partition(torch.zeros(20, dtype=torch.int64), 30, Data(**kind), 0)


def test_sizes_that_never_come_about_are_given_up() -> None:
    labels = torch.arange(100) % 2
    with pytest.raises(
        SettingsError, match=r"none of 1000 draws gave every client at least 20 images: raise data\.beta"
    ):
        partition(labels, 5, Data(partition="dirichlet", beta=0.05, least=20), 0)
    with pytest.raises(SettingsError, match=r"with unequal: 3\.0.*: lower data\.unequal"):
        partition(labels, 5, Data(unequal=3.0, least=20), 0)


def test_images_kept_for_the_warm_start_reach_no_client(make_run) -> None:
    for seed in (0, 1):
        run = make_run({"partition": "dirichlet"}, warm_start={"epochs": 1, "share": 0.3}, seed=seed)
        apart = data.kept_apart(run)
        parts = data.client_parts(run)
        assert len(apart) == round(0.3 * 1437)
        assert sorted([*apart, *(position for part in parts for position in part)]) == list(range(1437))
        labels = data.read(run.data).train_labels
        assert (torch.bincount(labels[apart]) - 0.3 * torch.bincount(labels)).abs().max() < 1
        assert apart == data.kept_apart(make_run(warm_start={"epochs": 9, "share": 0.3}))
    assert data.kept_apart(make_run()) == []


def test_what_is_counted_is_what_the_clients_get(make_run) -> None:
    run = make_run({"partition": "dirichlet", "beta": 0.3}, clients=5)
    loaded = data.load(run)
    counts = data.class_counts(run)
    assert counts.shape == (5, 10)
    for client in range(5):
        assert torch.bincount(loaded[5][client].dataset.tensors[1], minlength=10).tolist() == counts[client].tolist()


def test_the_picture_has_a_dot_for_each_class_of_a_client_and_its_sum(make_run) -> None:
    counts = torch.tensor([[3, 0, 40], [0, 12, 0]])
    figure = picture(make_run({"partition": "dirichlet"}, seed=4), counts, ["stop", "yield", "go"])
    dots, bars = figure.axes
    drawn = {
        (int(y), int(x)): size
        for (x, y), size in zip(dots.collections[0].get_offsets(), dots.collections[0].get_sizes(), strict=True)
    }
    assert drawn.keys() == {(0, 0), (0, 2), (1, 1)}
    assert drawn[0, 2] / drawn[1, 1] == pytest.approx(40 / 12)
    assert drawn[0, 2] == pytest.approx(150)  # the largest dot has the same area in every picture
    assert [bar.get_width() for bar in bars.patches] == [43, 12]
    assert [label.get_text() for label in dots.get_xticklabels()] == ["stop", "yield", "go"]
    assert figure.get_suptitle() == "digits: 55 training images, dirichlet, beta 0.5, seed 4"
