"""The networks: shapes, seeds, memory layout, pretrained weights."""

import urllib.request
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_large, resnet18

from benchmark import models
from benchmark.models import registry
from benchmark.models.settings import Model
from fedml_gradcam_ae.contract.settings import SettingsError

NAMES = ["small_cnn", "cnn", "resnet18", "resnet18_gn", "mobilenet_v3_large", "resnet20", "resnet56", "convnext", "vit"]


def weights_of(network):
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d)).weight


def innermost(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 43)])
@pytest.mark.parametrize("name", NAMES)
def test_every_network_takes_any_channels_and_classes_and_can_be_trained(make_run, name, channels, classes) -> None:
    network = models.create(make_run(model={"name": name}), classes, channels)
    answers = network(torch.rand(2, channels, 32, 32))
    assert answers.shape == (2, classes)
    answers.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_patches_that_do_not_fit_the_image_are_refused(make_run) -> None:
    with pytest.raises(SettingsError, match=r"patches of 4 x 4 pixels, found 30"):
        models.create(make_run(model={"name": "vit"}, data={"name": "digits", "size": 30}), 10, 1)


def test_the_plain_cnn_is_fedmls(make_run) -> None:
    from fedml.model.cv.cnn import CNN_DropOut

    ours = models.create(make_run(model={"name": "cnn"}, data={"name": "digits", "size": 28}), 10, 1).eval()
    theirs = CNN_DropOut().eval()
    named = zip(theirs.state_dict(), ours.state_dict().values(), strict=True)
    theirs.load_state_dict(dict(named))
    images = torch.rand(3, 1, 28, 28)
    assert torch.allclose(ours(images), theirs(images[:, 0]), atol=1e-5)


def test_all_registered_networks_are_tested() -> None:
    assert set(registry.networks()) == set(NAMES)


def test_group_norm_stands_wherever_resnet18_has_batch_norm(make_run) -> None:
    plain, grouped = (models.create(make_run(model={"name": name}), 10, 3) for name in ("resnet18", "resnet18_gn"))
    found = {name: module for name, module in grouped.named_modules() if isinstance(module, nn.GroupNorm)}
    assert {module.num_groups for module in found.values()} == {2}
    channels = {name: module.num_channels for name, module in found.items()}
    assert channels == {
        name: module.num_features for name, module in plain.named_modules() if isinstance(module, nn.BatchNorm2d)
    }
    assert len(channels) == 20


def test_small_cnn_starts_as_ever(make_run) -> None:
    torch.manual_seed(5)
    layers = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if outputs < 64 else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    expected = nn.Sequential(*layers)
    found = models.create(make_run(seed=5), 10, 1)
    assert str(found) == str(expected)
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))
    assert not innermost(weights_of(found))


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "resnet20"])
def test_the_seed_draws_the_weights(make_run, name) -> None:
    first, again, other = (
        torch.cat([p.flatten() for p in models.create(make_run(model={"name": name}, seed=seed), 5, 1).parameters()])
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_first_convolution_for_other_channels_keeps_its_geometry(make_run) -> None:
    gray, colored = (models.create(make_run(model={"name": "resnet18"}), 10, channels) for channels in (1, 3))
    assert gray.conv1.weight.shape == (64, 1, 7, 7)
    assert (gray.conv1.stride, gray.conv1.padding, gray.conv1.bias) == (colored.conv1.stride, (3, 3), None)
    # Kaiming, fan out: a variance of 2 / (64 * 7 * 7)
    assert gray.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"name": "resnet18"}, True),
        ({"name": "mobilenet_v3_large"}, True),
        ({"name": "small_cnn"}, False),
        ({"name": "small_cnn", "channels_last": True}, True),
        ({"name": "resnet18", "channels_last": False}, False),
    ],
)
def test_channels_last_is_the_networks_default_unless_it_is_set(make_run, model, expected) -> None:
    network = models.create(make_run(model=model), 10, 3)
    assert innermost(weights_of(network)) is expected
    assert Model(**model).channels_last is expected


def test_channels_last_gives_the_same_answers(make_run) -> None:
    images = torch.rand(4, 3, 32, 32)
    answers = [
        models.create(make_run(model={"name": "resnet18", "channels_last": last}), 10, 3)(images)
        for last in (False, True)
    ]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "file", "original"),
    [
        ("resnet18", "resnet18-f37072fd.pth", resnet18),
        ("mobilenet_v3_large", "mobilenet_v3_large-5c1a4163.pth", mobilenet_v3_large),
    ],
)
def test_pretrained_weights_but_for_a_new_head(make_run, tmp_path, monkeypatch, name, file, original) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = original().state_dict()
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub/checkpoints" / file)

    network = models.create(make_run(model={"name": name, "weights": "imagenet"}), 43, 3)

    found = network.state_dict()
    different = [key for key in state if not torch.equal(found[key], state[key])]
    head = "fc" if name == "resnet18" else "classifier.3"
    assert different == [f"{head}.weight", f"{head}.bias"]
    assert found[f"{head}.weight"].shape[0] == 43
    assert innermost(weights_of(network))


def test_pretrained_weights_that_cannot_be_had(make_run, tmp_path, monkeypatch) -> None:
    def offline(*_args, **_kwargs):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    run = make_run(model={"name": "resnet18", "weights": "imagenet"})
    message = (
        rf"could not be downloaded from https://\S+/resnet18-f37072fd.pth: .*no route.* put it into {tmp_path}/hub"
    )
    with pytest.raises(SettingsError, match=message):
        models.create(run, 10, 3)
    with pytest.raises(SettingsError, match=r"three channels, found 1: leave model.weights out"):
        models.create(run, 10, 1)


def test_one_decorated_function_adds_a_network(make_run, monkeypatch) -> None:
    monkeypatch.setattr(registry, "_entries", dict(registry.networks()))

    @models.register_model("linear", channels_last=False)
    def linear(classes, channels, size):
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))

    network = models.create(make_run({"size": 16}, {"name": "linear"}), 7, 3)
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 7)
    with pytest.raises(ValueError, match=r"'linear' is taken by .*linear: choose another name"):
        models.register_model("linear")(lambda **_: linear(1, 1, 1))


def test_testing_a_network_leaves_the_random_state_alone(make_run) -> None:
    from benchmark import data
    from benchmark.running import simulation

    batches = data.load(make_run())[3]
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 10))
    before = torch.get_rng_state()
    simulation.test(network, batches, 10)
    assert torch.equal(torch.get_rng_state(), before)
    next(iter(batches))
    assert not torch.equal(torch.get_rng_state(), before)  # what reading batches does by itself
