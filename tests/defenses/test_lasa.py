"""LASA against numpy, layer by layer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedml_gradcam_ae.defenses.lasa import LASA
from judging import check_awkward, matrix, round_of
from tiny import tiny_cnn


def defense(**params) -> LASA:
    return LASA(LASA.Settings(**params))


def updates(clients: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.02 * (rng.normal(size=218) + rng.normal(size=(clients, 218)))


def scores(values: np.ndarray) -> np.ndarray:
    return np.abs(values - np.median(values)) / np.std(values)


def by_the_paper(round, sparsity=0.3, norm_radius=2.0, sign_radius=1.0):
    """Each layer of the new model, and how many layers each client is left out of."""
    norms = np.linalg.norm(matrix(round), axis=1)
    factors = np.minimum(1, np.median(norms) / norms)
    center = {name: tensor.double().numpy() for name, tensor in round.global_model.items()}
    clients = [
        {name: (upload[name].double().numpy() - center[name]) * factor for name in center}
        for upload, factor in zip(round.uploads, factors, strict=True)
    ]
    for client in clients:
        weights = [name for name in center if center[name].ndim in (2, 4)]
        sizes = np.sort(np.concatenate([np.abs(client[name]).ravel() for name in weights]))[::-1]
        smallest = sizes[int(len(sizes) * (1 - sparsity)) - 1]
        for name in weights:
            client[name] = np.where(np.abs(client[name]) >= smallest, client[name], 0)
    model, out = {}, np.zeros(len(clients))
    for name in center:
        if "num_batches" in name:
            continue
        layer = np.stack([client[name].ravel() for client in clients])
        usual = np.ones(len(layer), bool)
        if np.ptp(layer, axis=0).any():
            signs = 0.5 * (1 + np.sign(layer).sum(1) / np.abs(np.sign(layer)).sum(1) * (1 - sparsity))
            usual = scores(np.linalg.norm(layer, axis=1)) < norm_radius
            if np.ptp(signs) > 0:
                usual &= scores(signs) < sign_radius
        usual = usual if usual.any() else ~usual
        model[name] = center[name] + layer[usual].mean(0).reshape(center[name].shape)
        out += ~usual
    return model, out / len(model)


@pytest.mark.parametrize("clients", [3, 6, 11, 20])
@pytest.mark.parametrize("params", [{}, {"sparsity": 0.8, "norm_radius": 1.0, "sign_radius": 1.5}])
def test_a_verdict_is_two_filters_and_a_mean_for_each_layer(clients, params) -> None:
    round = round_of(updates(clients, clients), tiny_cnn(), samples=[1.0 + i for i in range(clients)])
    model, out = by_the_paper(round, **params)
    assert 0 < out.max() < 1
    verdict = defense(**params).judge(round)
    assert verdict.scores == pytest.approx(out.tolist())
    assert list(verdict.model) == list(round.global_model)
    for name, expected in model.items():
        np.testing.assert_allclose(verdict.model[name].numpy(), expected, rtol=1e-5, atol=1e-7)


def test_a_client_is_flagged_that_is_left_out_of_all_layers() -> None:
    rows = 0.02 * np.abs(updates(9)) + 0.01
    rows[4] *= -1
    round = round_of(rows, tiny_cnn())
    uploads = [
        {**upload, "1.running_mean": torch.full((4,), 0.1 if i != 4 else -0.1), "1.running_var": torch.full((4,), 0.9)}
        for i, upload in enumerate(round.uploads)
    ]
    uploads[4]["1.running_var"] = torch.full((4,), 1.1)
    verdict = defense(norm_radius=100.0).judge(replace(round, uploads=uploads))
    assert verdict.excluded == [i == 4 for i in range(9)]
    assert verdict.scores[4] == pytest.approx(1)
    assert (verdict.model["1.running_mean"] > round.global_model["1.running_mean"]).all()


def test_the_smallest_changes_of_weights_become_nothing_and_biases_stay() -> None:
    rows = np.tile(np.linspace(0.01, 1, 218), (4, 1))
    round = round_of(rows, tiny_cnn())
    model = defense(sparsity=0.5).judge(round).model
    changed = {name: model[name] != round.global_model[name] for name in model}
    weights = torch.cat([changed[name].flatten() for name in ("0.weight", "5.weight")])
    assert int(weights.sum()) == len(weights) // 2
    for name in ("0.bias", "1.weight", "1.bias", "5.bias"):
        assert changed[name].all()


def test_where_no_client_passes_a_layer_is_the_mean_of_all() -> None:
    """By hand: norms 1, 1, 5, 5 and shares 0, 1, 0, 1 are all one deviation from their medians."""
    network = torch.nn.Linear(1, 1, bias=False)
    center = {"weight": torch.zeros(1, 1)}
    round = round_of(np.array([[-1.0], [1.0], [-5.0], [5.0]]), network, center)
    verdict = defense(norm_radius=0.5, sign_radius=0.5).judge(round)
    assert verdict.excluded == [False] * 4
    assert verdict.model["weight"].item() == 0


def test_an_update_is_bounded_before_it_is_averaged(make_round) -> None:
    """One client's bias is a thousand times as far as the others', in no layer that decides by norm."""
    round = make_round(6)
    uploads = [dict(upload) for upload in round.uploads]
    uploads[2]["5.bias"] = round.global_model["5.bias"] + 1000 * (uploads[2]["5.bias"] - round.global_model["5.bias"])
    model = defense(norm_radius=1e9, sign_radius=1e9).judge(replace(round, uploads=uploads)).model
    assert (model["5.bias"] - round.global_model["5.bias"]).abs().max() < 1


def test_one_and_two_clients_are_kept(make_round) -> None:
    for clients in (1, 2):
        assert defense().judge(make_round(clients)).scores == [0] * clients


def test_awkward_rounds(make_round) -> None:
    check_awkward(defense, make_round)
