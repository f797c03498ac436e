"""`gradcam_ae` on networks of many families, trained for a few steps: whom it flags, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from captum.attr import LayerGradCam
from fedml.model.linear.lr import LogisticRegression
from fedml.model.nlp.rnn import RNN_OriginalFedAvg
from torch import nn
from torchvision.ops.misc import Permute

from families import FAMILIES, attacked, build, federation, plain, swin
from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE
from fedml_gradcam_ae.heatmaps import class_maps, find_target_layer, grad_cam
from tiny import state_of

LONG = {
    "mnasnet",
    "swin_v2",
    "maxvit",
    "googlenet",
    "inception_v3",
    "fedml darts",
    "fedml efficientnet",
    "fedml resnet56",
}
QUICK_PAPER = {"profile": "paper", "epochs": 2, "map_size": "native"}


def defense(**params) -> GradCAMAE:
    return GradCAMAE(GradCAMAE.Settings(**params))


def flagged(round, **params) -> list[int]:
    judge = defense(**params)
    judge.prepare(round.network, round.test_data)
    return [client for client, bad in enumerate(judge.judge(round).flagged) if bad]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in FAMILIES]
)
def test_it_finds_copies_and_noise_and_no_honest_client(name) -> None:
    family = FAMILIES[name]
    honest = federation(build(name), family.shape, rate=family.rate)
    judge = defense()
    judge.prepare(honest.network, honest.test_data)
    assert (judge.profile._layer, judge.profile.probe.size) == (family.layer, family.size)
    assert judge.judge(honest).flagged == [False] * 8
    copied = replace(honest, uploads=attacked(honest, copies=(2, 5)))
    assert judge.judge(copied).flagged == [client in (2, 5) for client in range(8)]
    noisy = replace(honest, uploads=attacked(honest, copies=(), noisy=3))
    assert judge.judge(noisy).flagged == [client == 3 for client in range(8)]


@pytest.mark.parametrize("name", ["no channels", "signals", "volumes", "no_grad", "view", "vit", "swin", "maxvit"])
def test_the_published_profile_makes_maps_of_it(name) -> None:
    """Of 4 x 4 positions or more, at an earlier layer if the network takes only images of its own size."""
    network, images = build(name).eval(), FAMILIES[name].shape
    start = state_of(network)
    data = [(torch.rand(4, *images), torch.arange(4))]
    round = replace(federation(build("plain"), (1, 16, 16), 3), network=network, test_data=data, global_model=start)
    verdict = defense(**QUICK_PAPER).judge(replace(round, uploads=[start] * 3))
    maps = verdict.evidence["heat_maps"]
    assert torch.isfinite(maps).all()
    assert maps.shape[-1] >= 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "params", [{}, QUICK_PAPER, {**QUICK_PAPER, "map_size": 32}], ids=["robust", "paper", "resized"]
)
def test_networks_of_every_floating_type(dtype, params) -> None:
    round = federation(build("plain").to(dtype), (1, 16, 16), 5)
    verdict = defense(**params).judge(round)
    assert torch.isfinite(torch.tensor(verdict.scores)).all()
    if params == {}:
        assert not any(verdict.flagged)


@pytest.mark.parametrize("version", [1, 2])
def test_maps_with_channels_last_are_captums_of_a_copy_that_permutes_them(version) -> None:
    torch.manual_seed(0)
    network = swin(version).double().eval()
    nn.init.normal_(network.head.weight)
    upload = state_of(network)
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    found = class_maps(network, [upload], images, "features.1")[0]
    assert found.shape == (2, 10, 16, 16)

    kept = nn.Identity()
    network.features[1] = nn.Sequential(network.features[1], Permute([0, 3, 1, 2]), kept, Permute([0, 2, 3, 1]))
    for c in range(10):
        expected = LayerGradCam(network, kept).attribute(images, c)[:, 0].detach()
        assert torch.allclose(found[:, c], expected, atol=1e-12)
    assert (found.abs() > 1e-6).any()


@pytest.mark.parametrize(("axes", "shape"), [(1, (16,)), (3, (6, 4, 8))])
def test_maps_of_signals_and_volumes_are_rows_and_stacked_slices_of_captums(axes, shape) -> None:
    torch.manual_seed(0)
    network = plain(axes).double().eval()
    images = torch.rand(2, 1, *shape, dtype=torch.float64)
    assert find_target_layer(network, images) == "5"
    labels = torch.tensor([3, 8])
    expected = LayerGradCam(network, network[5]).attribute(images, labels, relu_attributions=True)[:, 0].detach()
    found = grad_cam(network, [state_of(network)], images, "5", labels)[0]
    assert found.shape == ((2, 1, 8) if axes == 1 else (2, 6, 4))
    assert torch.allclose(found.flatten(1), expected.flatten(1), atol=1e-12)


@pytest.mark.parametrize("params", [{}, QUICK_PAPER], ids=["robust", "paper"])
@pytest.mark.parametrize(
    "kept", ["BatchNorm at the clients", "statistics at the clients", "head only", "all but the head"]
)
def test_a_part_of_the_model_that_is_federated(kept, params) -> None:
    whole = federation(build("plain"), (1, 16, 16))
    of_norms = [name for name in whole.global_model if name.split(".")[0] in ("1", "4")]
    apart = {
        "BatchNorm at the clients": of_norms,
        "statistics at the clients": [name for name in of_norms if "running" in name or "tracked" in name],
        "head only": [name for name in whole.global_model if not name.startswith("8.")],
        "all but the head": ["8.weight", "8.bias"],
    }[kept]

    def part(model):
        return {name: tensor for name, tensor in model.items() if name not in apart}

    round = replace(whole, global_model=part(whole.global_model), uploads=[part(upload) for upload in whole.uploads])
    if params:
        assert torch.isfinite(torch.tensor(defense(**params).judge(round).scores)).all()
        return
    assert flagged(round) == []
    assert flagged(replace(round, uploads=[part(upload) for upload in attacked(whole, noisy=3)])) == [2, 3, 5]


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = plain()[:-1], nn.Linear(16, 10)

    def forward(self, images):
        return self.head(self.features(images).detach())


@pytest.mark.parametrize("params", [{}, QUICK_PAPER], ids=["robust", "paper"])
@pytest.mark.parametrize(
    ("network", "data", "message"),
    [
        (lambda: LogisticRegression(784, 10), torch.rand(4, 784), "found no convolution.*such as multi_krum"),
        (RNN_OriginalFedAvg, torch.randint(0, 90, (4, 20)), "cannot run on .* no heat maps: use a rule .* multi_krum"),
        (lambda: nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2)), torch.rand(4, 6), "tables have no heat maps"),
        (lambda: nn.Linear(6, 2), [object()] * 4, "Images must be .* graphs or tables have no heat maps"),
        (Detached, torch.rand(4, 1, 16, 16), "in a way that can be differentiated"),
    ],
    ids=["logistic regression", "text", "table", "graph", "detached"],
)
def test_what_has_no_maps_is_refused_at_the_start_in_words(network, data, message, params) -> None:
    with pytest.raises(ValueError, match=message):
        defense(**params).prepare(network(), [(data, torch.zeros(4, dtype=torch.long))])


@pytest.mark.parametrize("params", [{}, QUICK_PAPER], ids=["robust", "paper"])
def test_a_layer_behind_which_nothing_can_be_differentiated_is_refused_at_the_start(params) -> None:
    data = [(torch.rand(4, 1, 16, 16), torch.arange(4))]
    with pytest.raises(ValueError, match=r"in a way that can be differentiated .* name another layer"):
        defense(target_layer="features.5", **params).prepare(Detached(), data)


def test_a_federation_whose_models_overflow_in_eval_mode_goes_on() -> None:
    """As MNASNet's in the first rounds, whose statistics follow slowly."""
    round = federation(build("plain"), (1, 16, 16))
    broken = [{**upload, "4.running_mean": upload["4.running_mean"] + torch.inf} for upload in round.uploads]
    assert flagged(replace(round, uploads=broken)) == []
    assert flagged(replace(round, uploads=[broken[0], *round.uploads[1:]])) == [0]


def test_honest_maps_along_one_line_are_no_copies() -> None:
    """Of eight points on a line, two are nearer to each other than a fifth of the usual distance."""
    honest = federation(build("plain"), (1, 16, 16))
    start = honest.global_model
    step = {name: honest.uploads[0][name] - start[name] for name in honest.parameters}
    places = (-1.0, -0.7, -0.2, 0.0, 0.1, 0.6, 0.9, 1.3)

    def moved(place):
        return {**start, **{name: start[name] + place * step[name] for name in step}}

    judge = defense(relation_margin=0)
    judge.prepare(honest.network, honest.test_data)
    found = judge.judge(replace(honest, uploads=[moved(place) for place in places]))
    assert "its heat maps are nearly equal to another client's" not in found.reasons.values()
