"""BatchNorm's statistics against torch's own bookkeeping, against numpy, and on clients that have really trained."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import tracking
from fedml_gradcam_ae.networks.batchnorm import (
    estimated_statistics,
    moved_statistics,
    normalizing_layers,
    statistics_of,
)
from fedml_gradcam_ae.networks.images import seeded_generator
from fedml_gradcam_ae.networks.training import train_locally
from tiny import digits, state_of


def network() -> nn.Module:
    """Two BatchNorm layers, of which the second depends on how the first normalizes, and a dropout between them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(36, 8),
        nn.BatchNorm1d(8, momentum=0.3),
        nn.ReLU(),
        nn.Linear(8, 10),
    ).eval()


@pytest.mark.parametrize("sizes", [[16], [16, 16, 16]])
def test_estimates_are_what_torch_counts_in_train_mode(sizes) -> None:
    judge = network()
    model = {n: t + 0.1 if t.is_floating_point() else t for n, t in state_of(network()).items()}
    batches = digits()[0][: sum(sizes)].split(sizes)
    trained = copy.deepcopy(judge)
    trained.load_state_dict(model)
    for module in trained:
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.reset_running_stats()
            module.momentum = None  # the mean over batches
            module.train()
    with torch.no_grad():
        for images in batches:
            trained(images)
    found = estimated_statistics(judge, model, batches)
    assert set(found) == {f"{layer}.running_{kind}" for layer in (1, 6) for kind in ("mean", "var")}
    for name, values in found.items():
        assert torch.allclose(values, trained.state_dict()[name], rtol=1e-5)


def test_the_first_layers_estimate_is_numpys() -> None:
    model, images = state_of(network()), digits()[0][:20]
    inputs = nn.functional.conv2d(images, model["0.weight"], model["0.bias"], stride=2).numpy()
    found = estimated_statistics(network(), model, [images])
    assert found["1.running_mean"].numpy() == pytest.approx(inputs.mean(axis=(0, 2, 3)), rel=1e-4)
    assert found["1.running_var"].numpy() == pytest.approx(inputs.var(axis=(0, 2, 3), ddof=1), rel=1e-4)


def test_neither_the_network_nor_the_model_changes() -> None:
    judge, model = network(), state_of(network())
    before, kept = state_of(judge), {name: tensor.clone() for name, tensor in model.items()}
    estimated_statistics(judge, model, [digits()[0][:8]])
    assert all(torch.equal(before[name], tensor) for name, tensor in judge.state_dict().items())
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.items())
    assert not any(module.training for module in judge.modules())
    assert [layer.momentum for layer in normalizing_layers(judge).values()] == [0.1, 0.3]


def counted(start: dict[str, torch.Tensor], end: dict[str, torch.Tensor], images: torch.Tensor, momentum: float | None):
    """The state dict that torch leaves after three batches of the same images, on a straight way to other weights."""
    model = network()
    model.load_state_dict(start)
    for layer in normalizing_layers(model).values():
        layer.train()
        layer.momentum = momentum
    with torch.no_grad():
        for way in (0, 1 / 3, 2 / 3):
            for name, weight in model.named_parameters():
                weight.copy_(torch.lerp(start[name], end[name], way))
            model(images)
    return {**state_of(model), **{name: end[name] for name, _ in model.named_parameters()}}


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_moved_statistics_are_those_that_torch_counts_on_the_way_to_the_other_weights(momentum) -> None:
    judge, images = network(), digits()[0][:30]
    for layer in normalizing_layers(judge).values():
        layer.momentum = momentum
    weights = dict(network().named_parameters())
    start = counted(state_of(network()), state_of(network()), digits()[0][30:60], momentum)
    end, other = (
        {**start, **{name: start[name] + 0.003 * torch.randn_like(weight) for name, weight in weights.items()}}
        for _ in range(2)
    )
    trained = counted(start, end, images, momentum)
    found = moved_statistics(judge, start, trained, other, images)
    expected = counted(start, other, images, momentum)
    assert set(found) == {f"{layer}.running_{kind}" for layer in (1, 6) for kind in ("mean", "var")}
    assert torch.allclose(found["1.running_mean"], expected["1.running_mean"], atol=1e-6)  # linear in the weights
    for name, values in found.items():
        error, change = ((expected[name] - since).norm() for since in (values, trained[name]))
        assert error < 0.05 * change  # to first order


def test_moved_variances_stay_variances() -> None:
    start, images = state_of(network()), digits()[0][:30]
    trained = {**start, "1.running_var": torch.zeros(4), "1.num_batches_tracked": torch.tensor(20)}
    still = {**start, "0.weight": torch.zeros_like(start["0.weight"])}
    assert (moved_statistics(network(), start, trained, still, images)["1.running_var"] == 0).all()


def test_units_layers_and_numbers_that_are_none() -> None:
    judge, images = network(), digits()[0][:8]
    model = state_of(judge)
    model["1.running_var"] = torch.full((4,), 4.0)
    upload = {**model, "1.running_mean": torch.tensor([2.0, math.nan, -math.inf, 1e9])}
    found = statistics_of(judge, model, [upload, model], images)
    assert found is not None
    assert found.layers.tolist() == [0] * 4 + [1] * 8
    assert found.stored[0, :4].tolist() == pytest.approx([1, 20, -20, 20], rel=1e-5)
    expected = estimated_statistics(judge, model, [images])["1.running_mean"] / 2
    assert found.measured[1, :4].numpy() == pytest.approx(expected.numpy(), rel=1e-4)
    assert found.only(torch.tensor([False, True])).stored.tolist() == found.stored[1:].tolist()


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False)])
def test_where_nothing_is_stored_there_is_nothing_to_compare(layer) -> None:
    judge = nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.Flatten(), nn.Linear(144, 10)).eval()
    assert statistics_of(judge, judge.state_dict(), [judge.state_dict()], digits()[0][:8]) is None


def test_one_image_has_no_variance() -> None:
    assert statistics_of(network(), state_of(network()), [state_of(network())], digits()[0][:1]) is None


def test_what_was_trained_follows_its_weights_and_what_was_turned_around_does_not() -> None:
    images, labels = digits()
    judge, start = network(), state_of(network())
    uploads = []
    for client in range(10):
        own = slice(100 + 80 * client, 180 + 80 * client)
        uploads.append(
            train_locally(
                judge,
                start,
                images[own],
                labels[own],
                epochs=1,
                learning_rate=0.02,
                optimizer="adam",
                weight_decay=0.0,
                batch_size=10,
                generator=seeded_generator(client),
            )
        )
    weights = {name for name, _ in judge.named_parameters()}
    for flipped in (0, 1):
        uploads[flipped] = {n: 2 * start[n] - t if n in weights else t for n, t in uploads[flipped].items()}
    found = statistics_of(judge, start, uploads, images[:8])
    assert found is not None
    cosines = tracking(found.measured, found.stored, found.layers, torch.ones(10, dtype=torch.bool)).numpy()
    assert cosines[:2].max() < 0 < cosines[2:].min()
    assert np.median(cosines[2:]) > 0.3
