import dataclasses
import math

import pytest
import torch
from torch import nn

from fedml_gradcam_ae.attacks import adaptive_heatmap
from fedml_gradcam_ae.attacks.adaptive_heatmap import AdaptiveHeatmap
from fedml_gradcam_ae.attacks.constrained_perturbation import ConstrainedPerturbation
from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE
from fedml_gradcam_ae.heatmaps import (
    class_maps,
    differentiable_class_maps,
    differentiable_grad_cam,
    grad_cam,
    layer_cam,
)
from flat import update
from tiny import digits, state_of, tiny_cnn

ATTACKERS, BENIGN = [1, 4], [0, 2, 3, 5]
PROBE = {"probe_images": 4, "probe_size": "native", "map_size": "native"}
SMALL = {"steps": 10, "images": 32}


def poison(round, profile="paper", **params):
    probe = PROBE if profile == "paper" else {}
    settings = AdaptiveHeatmap.Settings(profile=profile, **{**SMALL, **probe, **params})
    return AdaptiveHeatmap(settings).poison(round, ATTACKERS)


def with_local_data(make_round, **changes):
    images, labels = digits()
    local = {100 + i: [(images[50 * i : 50 * i + 40], labels[50 * i : 50 * i + 40])] for i in range(6)}
    return make_round(local_data=local, **changes)


def convolutions():
    """The target layer, a BatchNorm, is followed by a ReLU that overwrites its input."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(45, 10),
    ).eval()


@pytest.mark.parametrize("layer", ["0", "2", "3", "4"])
@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize(("method", "make"), [("gradcam", grad_cam), ("layercam", layer_cam)])
def test_the_differentiable_maps_are_the_defenses(layer, labeled, method, make) -> None:
    network = convolutions()
    images, labels = (tensor[:6] for tensor in digits())
    target = labels if labeled else None
    upload = state_of(network)
    for name, _ in network.named_parameters():
        upload[name].requires_grad_()
    expected = make(network, [state_of(network)], images, layer, target)[0]
    found = differentiable_grad_cam(network, upload, images, layer, target, method)
    assert expected.max() > 0
    assert torch.allclose(found, expected, atol=1e-6)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_their_gradient_is_that_of_finite_differences(method) -> None:
    network = convolutions().double()
    images, labels = digits()
    images, labels = images[:2].double(), labels[:2]
    state = state_of(network)

    def maps(*parameters):
        upload = {**state, **dict(zip(["2.weight", "2.bias", "7.weight"], parameters, strict=True))}
        return differentiable_grad_cam(network, upload, images, "3", labels, method)

    inputs = tuple(state[name].requires_grad_() for name in ("2.weight", "2.bias", "7.weight"))
    assert maps(*inputs).requires_grad
    assert torch.autograd.gradcheck(maps, inputs, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("layer", ["0", "2", "3", "4"])
def test_the_differentiable_class_maps_are_class_maps(layer) -> None:
    network = convolutions()
    images, _ = digits()
    upload = state_of(network)
    for name, _ in network.named_parameters():
        upload[name].requires_grad_()
    expected = class_maps(network, [state_of(network)], images[:6], layer)[0]
    found = differentiable_class_maps(network, upload, images[:6], layer)
    assert expected.abs().max() > 0
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_class_maps_gradient_is_that_of_finite_differences() -> None:
    network = convolutions().double()
    images = digits()[0][:2].double()
    state = state_of(network)

    def maps(*parameters):
        upload = {**state, **dict(zip(["2.weight", "2.bias", "7.weight"], parameters, strict=True))}
        return differentiable_class_maps(network, upload, images, "3")

    inputs = tuple(state[name].requires_grad_() for name in ("2.weight", "2.bias", "7.weight"))
    assert maps(*inputs).requires_grad
    assert torch.autograd.gradcheck(maps, inputs, eps=1e-7, atol=1e-5)


def test_layers_below_that_are_constant_do_not_matter() -> None:
    """Only the head is trained: the maps still depend on it through their weights alpha."""
    network = convolutions()
    images, labels = (tensor[:2] for tensor in digits())
    upload = {**state_of(network)}
    upload["7.weight"].requires_grad_()
    maps = differentiable_grad_cam(network, upload, images, "3", labels)
    (slope,) = torch.autograd.grad(maps.sum(), upload["7.weight"])
    assert slope.abs().max() > 0


def penalty(round, upload, **params):
    """||CAM(W') - mean CAM||^2 / v, of the maps that the defense itself would make."""
    probe = GradCAMAE(GradCAMAE.Settings(profile="paper", **PROBE, **params)).profile.probe
    part = round.only([*BENIGN, ATTACKERS[0]])
    maps = probe.maps(dataclasses.replace(part, uploads=[*part.uploads[:-1], upload]))
    mean = maps[:-1].mean(dim=0)
    distances = ((maps - mean) ** 2).sum(dim=(1, 2, 3))
    return (distances[-1] / distances[:-1].mean()).item()


def contaminated_loss(round, upload, images, labels):
    """Cross-entropy of the federated average, by loading it into the network."""
    uploads = [upload if i in ATTACKERS else honest for i, honest in enumerate(round.uploads)]
    network = tiny_cnn().eval()
    network.load_state_dict(average(uploads, round.samples))
    with torch.no_grad():
        return nn.functional.cross_entropy(network(images), labels).item()


def average(uploads, samples):
    weights = [n / sum(samples) for n in samples]
    return {
        name: sum(w * upload[name].double() for w, upload in zip(weights, uploads, strict=True)).to(like.dtype)
        for name, like in uploads[0].items()
    }


def test_without_the_penalty_it_hurts_like_the_constrained_perturbation(make_round) -> None:
    round = with_local_data(make_round)
    plain = ConstrainedPerturbation(ConstrainedPerturbation.Settings(steps=10, images=32)).poison(round, ATTACKERS)
    losses = [contaminated_loss(round, upload[0], *digits()) for upload in (poison(round, map_weight=0.0), plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_the_maps_stay_like_the_benign_ones_and_the_loss_still_rises(make_round) -> None:
    round = with_local_data(make_round, number=3)
    params = {"probe_seed": 7, "steps": 50, "radius": 3.0}
    bold, hidden = (poison(round, map_weight=weight, **params)[0] for weight in (0.0, 1.0))
    distances = [penalty(round, upload, seed=7) for upload in (bold, hidden)]
    assert distances[0] > 2  # further out than a benign upload
    assert distances[1] < 1
    harmless = average([round.uploads[i] for i in BENIGN], [round.samples[i] for i in BENIGN])
    images, labels = digits()
    assert contaminated_loss(round, hidden, images, labels) > contaminated_loss(round, harmless, images, labels) + 0.2


def robust_penalties(round, upload, seed):
    """The same of what uploads change in the maps of all classes, for each size of the robust defense's images."""
    probe = GradCAMAE(GradCAMAE.Settings(seed=seed)).profile.probe
    layer = probe.prepare(round.network, round.test_data)
    drawn = probe.draw(round.network, round.test_data, round.number)
    models = [round.global_model, *(round.uploads[i] for i in BENIGN), upload]
    found = []
    for images in (drawn.large, drawn.native):
        maps = class_maps(round.network, models, images, layer).double().numpy()
        changes = (maps[1:] - maps[0]) - (maps[1:] - maps[0]).mean(axis=2, keepdims=True)
        distances = ((changes - changes[:-1].mean(axis=0)) ** 2).sum(axis=(1, 2, 3, 4))
        found.append(distances[-1] / distances[:-1].mean())
    return found


def test_the_maps_of_all_classes_stay_like_the_benign_ones_and_the_loss_still_rises(make_round) -> None:
    round = with_local_data(make_round, number=3)
    params = {"profile": "robust", "probe_seed": 7, "steps": 50, "radius": 3.0}
    bold, hidden = (poison(round, map_weight=weight, **params)[0] for weight in (0.0, 0.01))
    assert min(robust_penalties(round, bold, seed=7)) > 100
    assert max(robust_penalties(round, hidden, seed=7)) < 1.5  # about an average benign upload's
    harmless = average([round.uploads[i] for i in BENIGN], [round.samples[i] for i in BENIGN])
    images, labels = digits()
    assert contaminated_loss(round, hidden, images, labels) > contaminated_loss(round, harmless, images, labels) + 0.05


@pytest.mark.parametrize("weight", [0.3, 3.0, 30.0])
def test_what_it_maximizes_does_not_fall_however_hard_the_climb(make_round, weight) -> None:
    """The maximum is close to the center of a wide ball, where steps of one length would end nowhere."""
    round = with_local_data(make_round, number=3)
    images, labels = round.local_data[101][0]
    local = {101: [(images, labels)], 104: [(images, labels)]}
    round = dataclasses.replace(round, local_data=local)
    upload = poison(round, map_weight=weight, images=1000, target_class="label", steps=20, radius=3.0)[0]
    harmless = average([round.uploads[i] for i in BENIGN], [round.samples[i] for i in BENIGN])

    def objective(upload):
        return contaminated_loss(round, upload, images, labels) - weight * penalty(round, upload, target_class="label")

    assert objective(upload) > objective(harmless) + 0.01


def test_no_copy_leaves_the_ball(make_round) -> None:
    round = with_local_data(make_round)
    samples = [round.samples[i] for i in BENIGN]
    heard = [update(round, round.uploads[i]) for i in BENIGN]
    mean = sum(n * u for n, u in zip(samples, heard, strict=True)) / sum(samples)
    furthest = max(math.dist(u, mean) for u in heard)
    share = 1 - sum(samples) / sum(round.samples)
    for jitter in (0.0, 1.0):
        for upload in poison(round, radius=0.7, jitter=jitter):
            assert (1 - share) * math.dist(update(round, upload), mean) <= 0.7 * furthest * (1 + 1e-6)


def watch(monkeypatch, original=differentiable_grad_cam):
    """The images that the maps of W' are made of."""
    seen = []

    def watched(network, upload, images, layer, *labels):
        seen.append((images, layer, *labels))
        return original(network, upload, images, layer, *labels)

    monkeypatch.setattr(adaptive_heatmap, original.__name__, watched)
    return seen


def test_a_known_probe_is_the_one_that_the_defense_draws(make_round, monkeypatch) -> None:
    seen = watch(monkeypatch)
    for number in (1, 2):
        round = with_local_data(make_round, number=number)
        seen.clear()
        poison(round, probe="known", probe_seed=5, target_class="label", steps=1, probe_size=12)
        defense = GradCAMAE(GradCAMAE.Settings(profile="paper", probe_images=4, probe_size=12, seed=5))
        images, labels = defense.profile.probe.draw(round.network, round.test_data, number)
        assert all(torch.equal(used, images) and torch.equal(classes, labels) for used, _, classes, _ in seen)
        assert {layer for _, layer, *_ in seen} == {defense.profile.probe.prepare(round.network, round.test_data)}


def test_a_known_robust_probe_is_the_one_that_the_defense_draws(make_round, monkeypatch) -> None:
    seen = watch(monkeypatch, differentiable_class_maps)
    params = {"probe_images": 3, "native_images": 5, "probe_size": 16}
    for number in (1, 2):
        round = with_local_data(make_round, number=number)
        seen.clear()
        poison(round, profile="robust", probe="known", probe_seed=5, steps=1, **params)
        probe = GradCAMAE(GradCAMAE.Settings(seed=5, **params)).profile.probe
        layer = probe.prepare(round.network, round.test_data)
        drawn = probe.draw(round.network, round.test_data, number)
        assert drawn.large.shape == (3, 1, 16, 16)
        assert drawn.native.shape == (5, 1, 8, 8)
        for large, native in zip(seen[::2], seen[1::2], strict=True):
            assert torch.equal(large[0], drawn.large)
            assert torch.equal(native[0], drawn.native)
            assert large[1] == native[1] == layer


def test_an_own_robust_probe_comes_from_the_attackers_data_alone(make_round, monkeypatch) -> None:
    seen = watch(monkeypatch, differentiable_class_maps)
    round = with_local_data(make_round)
    poison(round, profile="robust", probe="own", probe_size="native", steps=1)
    pool = {tuple(image.flatten().tolist()) for i in ATTACKERS for image in round.local_data[100 + i][0][0]}
    assert [len(images) for images, _ in seen[:2]] == [4, 8]
    assert all(tuple(image.flatten().tolist()) in pool for images, _ in seen[:2] for image in images)


def test_an_own_probe_comes_from_the_attackers_data_alone(make_round, monkeypatch) -> None:
    seen = watch(monkeypatch)
    round = with_local_data(make_round)
    poison(round, probe="own", steps=1)
    pool = {tuple(image.flatten().tolist()) for i in ATTACKERS for image in round.local_data[100 + i][0][0]}
    assert seen[0][0].shape == (4, 1, 8, 8)
    assert all(tuple(image.flatten().tolist()) in pool for image in seen[0][0])


def test_maps_that_are_too_small_are_refused(make_round) -> None:
    with pytest.raises(ValueError, match="2 x 2 on images of 8 x 8"):
        poison(make_round(), target_layer="3")


def test_keys_of_the_other_profile_are_refused() -> None:
    with pytest.raises(ValueError, match=r"map_size: of profile 'paper' only, .* has native_images instead"):
        AdaptiveHeatmap.Settings(map_size="native")
    with pytest.raises(ValueError, match="native_images: of profile 'robust' only"):
        AdaptiveHeatmap.Settings(profile="paper", native_images=4)
    assert AdaptiveHeatmap.Settings(profile="paper").probe_size == 224
