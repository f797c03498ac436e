"""What uploads still know of the classes: by hand, against numpy, and with two and three clients."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE
from fedml_gradcam_ae.defenses.gradcam_ae.knowledge import (
    LEAST_SHARE,
    MOST_CLIENTS,
    Knowledge,
    discrimination,
    discriminations_of,
    lost_shares,
)
from fedml_gradcam_ae.networks.outputs import Classifier
from tiny import digits


def drawn(seed: int, images: int = 40, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    return torch.randn(images, classes, generator=generator) + 2 * torch.eye(classes)[labels], labels


def test_the_discrimination_is_a_mean_cosine() -> None:
    scores, labels = drawn(1)
    table = scores.double().numpy()
    table = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    cosines = [row[label] / np.linalg.norm(row) for row, label in zip(table, labels.tolist(), strict=True)]
    assert float(discrimination(scores, labels)) == pytest.approx(np.mean(cosines))


def test_preferences_among_classes_and_the_scale_change_nothing() -> None:
    scores, labels = drawn(2)
    before = float(discrimination(scores, labels))
    assert before > 0.5
    preferred = scores + torch.tensor([50.0, -3.0, 0.0, 0.0, 7.0])
    assert float(discrimination(preferred, labels)) == pytest.approx(before, abs=1e-4)
    assert float(discrimination(1e-3 * scores, labels)) == pytest.approx(before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_hostile_scores_have_a_finite_discrimination(bad) -> None:
    scores, labels = drawn(3)
    scores[::3, 1] = bad
    assert -1 <= float(discrimination(scores, labels)) <= 1
    assert float(discrimination(torch.full_like(scores, bad), labels)) == 0


def test_a_share_is_lost_of_the_global_models_or_of_the_medians_discrimination() -> None:
    uploads = torch.tensor([0.6, 0.0, 0.3])
    assert lost_shares(uploads, torch.tensor(0.6)).tolist() == pytest.approx([0, 1, 0.5])
    assert lost_shares(uploads, torch.tensor(-0.1)).tolist() == pytest.approx([0, 1, 0])  # the first round
    assert lost_shares(uploads, torch.tensor(0.2)).tolist() == pytest.approx([0, 1, 0])
    assert lost_shares(uploads / 2, torch.tensor(0.2)).tolist() == [0, 0, 0]  # nobody knows enough


@pytest.fixture(scope="module")
def learned() -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """A network that knows the digits, and test data with labels."""
    torch.manual_seed(0)
    images, labels = digits()
    images = images.reshape(len(images), 1, 8, 8)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    train(network, images[:600], labels[:600], steps=120)
    return network, [(images[600:800], labels[600:800])]


def train(network, images, labels, steps) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(steps):
        batch = slice(32 * step % len(images), 32 * step % len(images) + 32)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()


def uploads_of(network, test_data, clients) -> list[dict[str, torch.Tensor]]:
    """What clients with two classes each upload after a few steps."""
    images, labels = test_data[0]
    found = []
    for client in range(clients):
        own = copy.deepcopy(network)
        mine = (labels == client) | (labels == client + 3)
        train(own, images[mine], labels[mine], steps=4)
        found.append({name: tensor.detach().clone() for name, tensor in own.state_dict().items()})
    return found


def noise(network, seed=5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(tensor.shape, generator=generator) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("clients", [2, 3, 4, 9])
def test_noise_and_an_empty_model_are_left_out_among_few_clients(make_round, learned, clients) -> None:
    network, test_data = learned
    honest = uploads_of(network, test_data, clients)
    round = replace(make_round(clients=clients, network=network), test_data=test_data, uploads=honest)
    defense = GradCAMAE(GradCAMAE.Settings(epochs=10))
    assert defense.judge(round).excluded == [False] * clients
    zeros = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    for hostile in (noise(network), zeros):
        verdict = GradCAMAE(GradCAMAE.Settings(epochs=10)).judge(replace(round, uploads=[hostile, *honest[1:]]))
        assert verdict.excluded == [True] + [False] * (clients - 1)
        assert verdict.scores[0] > 1


def test_the_reason_names_the_server_s_images(make_round, learned) -> None:
    network, test_data = learned
    uploads = [noise(network), *uploads_of(network, test_data, 1)]
    round = replace(make_round(clients=2, network=network), test_data=test_data, uploads=uploads)
    verdict = GradCAMAE(GradCAMAE.Settings(epochs=10)).judge(round)
    assert verdict.reasons == {round.client_ids[0]: Knowledge.reason}


def test_it_is_measured_among_few_clients_and_with_labels_only(make_round, learned) -> None:
    network, test_data = learned
    for clients, wanted in ((1, True), (MOST_CLIENTS, True), (MOST_CLIENTS + 1, False)):
        uploads = [network.state_dict()] * clients
        round = make_round(clients=clients, network=network)
        round = replace(round, test_data=test_data, uploads=uploads, network=Classifier(network, None))
        found = discriminations_of(round, 10, seed=0)
        assert (found is not None) == wanted
        if found is not None:
            assert found.tolist() == pytest.approx([float(found[0])] * (clients + 1))
            assert 1 / (1 + LEAST_SHARE) > float(found[0]) > LEAST_SHARE
    unlabeled = [(test_data[0][0], torch.full((200,), 77))]
    round = make_round(clients=2, network=network)
    assert discriminations_of(replace(round, test_data=unlabeled), 10, seed=0) is None
