"""Blocks of columns against whole matrices in numpy."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.spatial.distance import cdist
from torchvision.models import resnet18

from fedml_gradcam_ae.contract import updates as module
from fedml_gradcam_ae.contract.updates import Updates, flatten, squared_distances, unflatten, weighted_mean
from tiny import state_of, tiny_cnn
from vectors import matrices, round_of, rows_of, vector_of


@pytest.fixture
def small_blocks(monkeypatch):
    """So that a few numbers are several blocks."""
    monkeypatch.setattr(module, "_SMALLEST_BLOCK", 2)


@settings(max_examples=60, deadline=None)
@given(rows=matrices(least=1))
def test_gram_and_distances_are_numpys(rows) -> None:
    round = round_of(rows)
    expected = rows_of(round)
    scale = max(1e-12, np.abs(expected).max() ** 2) * expected.shape[1]
    assert np.allclose(round.updates.gram.numpy(), expected @ expected.T, atol=1e-12 * scale)
    assert np.allclose(round.updates.squared_distances.numpy(), cdist(expected, expected) ** 2, atol=1e-10 * scale)
    assert (round.updates.squared_distances.diagonal() == 0).all()


def test_many_blocks_make_the_same_sums(small_blocks) -> None:
    rows = torch.randn(5, 301, dtype=torch.float64)
    round = round_of(rows)
    expected = rows_of(round)
    assert sum(1 for _ in round.updates.blocks()) > 50
    assert np.allclose(torch.cat(list(round.updates.blocks()), dim=1).numpy(), expected, atol=1e-15)
    reuse_buffer = [block.clone() for block in round.updates.blocks(reuse_buffer=True)]
    assert np.allclose(torch.cat(reuse_buffer, dim=1).numpy(), expected, atol=1e-15)
    assert np.allclose(round.updates.gram.numpy(), expected @ expected.T)
    direction = dict(round.uploads[2])
    assert np.allclose(round.updates.dot(direction).numpy(), expected @ vector_of(direction))


def test_a_huge_first_upload_does_not_blur_the_distances_between_the_others() -> None:
    rows = torch.randn(6, 1000)
    rows[0] = 1e6 * torch.randn(1000)
    round = round_of(rows)
    expected = cdist(rows_of(round), rows_of(round)) ** 2
    assert np.allclose(round.updates.squared_distances.numpy()[1:, 1:], expected[1:, 1:], rtol=1e-9)


def test_distances_are_computed_once_a_round(monkeypatch) -> None:
    round = round_of(torch.randn(4, 10))
    passes = []
    pieces = Updates._pieces_of
    monkeypatch.setattr(Updates, "_pieces_of", lambda self, name: passes.append(name) or pieces(self, name))
    for _ in range(3):
        assert round.updates.squared_distances.shape == (4, 4)
    assert round.updates.gram.shape == (4, 4)
    assert passes == round.parameters


def test_equal_updates_have_no_distance_whatever_a_processor_rounds() -> None:
    rounded = torch.full((3, 3), 0.7, dtype=torch.float64)
    rounded[2] -= 1e-16  # as some processors round the last rows of a product
    rounded[0, 1] += 1e-16
    assert (squared_distances(rounded) == 0).all()


def test_updates_two_steps_of_float32_apart_have_a_distance() -> None:
    rows = torch.ones(2, 50)
    rows[1] += 2 * torch.finfo(torch.float32).eps
    gram = rows.double() @ rows.double().T
    expected = float((rows[0] - rows[1]).double().square().sum())
    assert float(squared_distances(gram)[0, 1]) == pytest.approx(expected, rel=0.1, abs=0)


@pytest.mark.parametrize("gram", [[[np.inf, 0.0], [0.0, 1.0]], [[np.nan, np.nan], [np.nan, 1.0]]])
def test_what_is_not_finite_is_not_near(gram) -> None:
    assert squared_distances(torch.tensor(gram, dtype=torch.float64))[0, 1] != 0


@settings(max_examples=40, deadline=None)
@given(rows=matrices(least=2))
def test_combine_is_the_global_model_plus_the_weighted_updates(rows) -> None:
    round = round_of(rows)
    coefficients = torch.linspace(-0.5, 1, len(rows), dtype=torch.float64)
    weights = torch.full((len(rows),), 1 / len(rows))
    model = round.updates.combine(coefficients, weights)
    expected = vector_of(round.global_model) + coefficients.numpy() @ rows_of(round)
    assert np.allclose(vector_of(model), expected, rtol=1e-5, atol=1e-4 * np.abs(expected).max())
    assert list(model) == list(round.global_model)
    assert all(model[name].dtype == tensor.dtype for name, tensor in round.global_model.items())
    assert model["statistic"].tolist() == pytest.approx([(len(rows) - 1) / 2] * 2)
    assert model["batches"].item() == round_half_even(10 * (len(rows) - 1) / 2)


def round_half_even(number):
    return int(np.rint(number))


def test_without_weights_statistics_follow_the_coefficients_and_with_none_at_all_they_stay() -> None:
    round = round_of(torch.randn(3, 4))
    assert round.updates.combine(torch.tensor([0.0, 0.1, 0.3]))["statistic"].tolist() == pytest.approx([1.75] * 2)
    stays = round.updates.combine(torch.zeros(3))
    assert all(torch.equal(stays[name], tensor) for name, tensor in round.global_model.items())


@settings(max_examples=40, deadline=None)
@given(rows=matrices(least=2))
def test_mixing_mixes_everything(rows) -> None:
    round = round_of(rows.astype(np.float64))
    clients = len(rows)
    mixing = torch.softmax(torch.arange(clients * clients, dtype=torch.float64).view(clients, -1) % 5, dim=1)
    mixed, expected = round.updates.mixed(mixing), mixing.numpy() @ rows_of(round)
    close = {"rtol": 1e-9, "atol": 1e-9 * max(1.0, np.abs(expected).max() ** 2)}
    assert np.allclose(torch.cat(list(mixed.blocks()), dim=1).numpy(), expected, **close)
    assert np.allclose(mixed.gram.numpy(), expected @ expected.T, **close)
    columns = torch.arange(0, rows.shape[1], 2)
    assert np.allclose(mixed.sample(columns).numpy(), expected[:, ::2], **close)
    coefficients = torch.linspace(0.1, 0.5, clients)
    moved = vector_of(mixed.combine(coefficients)) - vector_of(round.global_model)
    assert np.allclose(moved, coefficients.double().numpy() @ expected, **close)
    largest = vector_of(mixed.columnwise(lambda values: values.amax(0))) - vector_of(round.global_model)
    assert np.allclose(largest, expected.max(0), **close)


def test_coordinates_are_sampled_in_the_order_of_flatten(make_round) -> None:
    round = make_round()
    columns = torch.tensor([0, 3, 36, 41, 47, 48, 120, round.updates.size - 1])
    whole = torch.stack([flatten(upload, round.parameters) for upload in round.uploads]).double()
    whole -= flatten(round.global_model, round.parameters).double()
    assert torch.equal(round.updates.sample(columns), whole[:, columns])


def test_coordinates_are_sampled_wherever_they_lie_in_memory() -> None:
    center = {"one": torch.tensor(2.0), "none": torch.empty(0, 3), "matrix": torch.zeros(3, 4)}
    laid_out = [torch.randn(3, 4), torch.randn(4, 3).T, torch.randn(9, 8)[2:5, ::2], torch.randn(4).expand(3, 4)]
    uploads = [{**center, "one": torch.tensor(2.0 + i), "matrix": tensor} for i, tensor in enumerate(laid_out)]
    sampled = Updates(uploads, center, list(center)).sample(torch.tensor([0, 1, 4, 8, 12]))
    expected = [[i, *tensor.flatten()[[0, 3, 7, 11]].tolist()] for i, tensor in enumerate(laid_out)]
    assert sampled.tolist() == expected


def test_columnwise_covers_statistics_and_counters() -> None:
    round = round_of(torch.randn(5, 6))
    model = round.updates.columnwise(lambda values: values.amax(0))
    assert model["statistic"].tolist() == [4.0, 4.0]
    assert model["batches"].item() == 40
    assert model["batches"].dtype == torch.int64


def test_channels_last_tensors_are_read_in_the_right_order(small_blocks) -> None:
    torch.manual_seed(0)
    network = resnet18(num_classes=3)
    plain = [
        {name: tensor + torch.rand(tensor.shape).to(tensor.dtype) for name, tensor in state_of(network).items()}
        for _ in range(3)
    ]
    names = ["conv1.weight", "fc.weight"]
    swapped = [
        {n: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for n, t in upload.items()}
        for upload in plain
    ]
    center = state_of(network)
    expected, found = Updates(plain, center, names), Updates(swapped, center, names)
    assert torch.allclose(found.gram, expected.gram)
    columns = torch.arange(0, expected.size, 97)
    assert torch.equal(found.sample(columns), expected.sample(columns))
    assert torch.allclose(flatten(found.combine(torch.ones(3)), names), flatten(expected.combine(torch.ones(3)), names))


def test_only_trainable_parameters_count(make_round) -> None:
    network = tiny_cnn()
    network[0].weight.requires_grad_(False)
    round = make_round(network=network)
    assert "0.weight" not in round.parameters
    assert round.updates.size == sum(p.numel() for p in network.parameters()) - network[0].weight.numel()
    assert make_round().parameters == [name for name, _ in tiny_cnn().named_parameters()]


def test_weighted_mean_and_flatten() -> None:
    first, second = ({"a": torch.full((2, 2), v), "n": torch.tensor(int(v))} for v in (1.0, 4.0))
    mean = weighted_mean([first, second], [0.25, 0.75])
    assert mean["a"].tolist() == [[3.25, 3.25]] * 2
    assert mean["n"].item() == 3
    flat = flatten({"a": torch.arange(6).view(2, 3), "b": torch.tensor([7])}, ["b", "a"])
    assert flat.tolist() == [7, 0, 1, 2, 3, 4, 5]
    assert unflatten(flat, {"a": torch.zeros(2, 3), "b": torch.zeros(1)}, ["b", "a"])["a"].tolist() == [
        [0, 1, 2],
        [3, 4, 5],
    ]


MEMORY = """
import resource, sys, torch
from fedml_gradcam_ae.maths.order_statistics import middle_rows
from fedml_gradcam_ae.contract.updates import Updates
torch.set_num_threads(1)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def work(size, clients):
    center = {"w": torch.zeros(size)}
    uploads = [{"w": torch.randn(size)} for _ in range(clients)]
    before = peak()
    updates = Updates(uploads, center, ["w"])
    if sys.argv[1] == "gram":
        updates.squared_distances
    else:
        updates.columnwise(lambda values: middle_rows(values, 3).mean(0))
    return peak() - before

work(100_000, 20)  # loads what the first use loads
print(work(4_000_000, 20) / (4 * 4_000_000 * 20))
"""


@pytest.mark.parametrize(("what", "model_too"), [("gram", 0), ("columnwise", 2 / 20)])
def test_a_tenth_of_the_uploads_size_is_enough_memory(what, model_too) -> None:
    """For a model that is made, its pieces and itself come on top: one upload's size each."""
    result = subprocess.run([sys.executable, "-c", MEMORY, what], capture_output=True, text=True, check=True)
    assert 0 <= float(result.stdout) < 0.1 + model_too
