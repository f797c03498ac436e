"""`gradcam_ae` with `profile: robust` on rounds of a small network; tests/test_evidence.py has the statistics."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision import models

from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE
from fedml_gradcam_ae.defenses.gradcam_ae.evidence import Evidence, kinds_of
from fedml_gradcam_ae.defenses.gradcam_ae.observed import Maps, Observed
from fedml_gradcam_ae.defenses.gradcam_ae.settings import PAPER
from fedml_gradcam_ae.heatmaps import class_maps
from fedml_gradcam_ae.networks.batchnorm import statistics_of
from fedml_gradcam_ae.networks.images import draw_images, seeded_generator
from tiny import state_of, tiny_cnn


def defense(**params) -> GradCAMAE:
    return GradCAMAE(GradCAMAE.Settings(**{"profile": "robust", "epochs": 20, **params}))


def without_batchnorm() -> nn.Module:
    network = tiny_cnn()
    network[1] = nn.GroupNorm(2, 4)
    return network


def copied(round, attackers, noise=0.0):
    """The round with one update of average length uploaded by each attacker, with noise on every weight."""
    generator = torch.Generator().manual_seed(7)
    agreed = {name: torch.randn(t.shape, generator=generator) for name, t in round.global_model.items()}
    uploads = list(round.uploads)
    for attacker in attackers:
        uploads[attacker] = {
            name: t + 0.05 * agreed[name] + noise * 0.05 * torch.randn(t.shape, generator=generator)
            for name, t in round.global_model.items()
        }
    return replace(round, uploads=uploads)


def test_the_profiles_defaults() -> None:
    robust = {"probe_images": 4, "probe_size": "auto", "hidden_size": 32, "epochs": 100, "learning_rate": 0.01}
    for profile, own in (("robust", robust), ("paper", PAPER)):
        settings = GradCAMAE.Settings(profile=profile)
        assert {key: getattr(settings, key) for key in own} == own
        assert GradCAMAE.Settings(profile=profile, epochs=7).epochs == 7


@pytest.mark.parametrize("network", [tiny_cnn, without_batchnorm])
def test_a_verdict_is_evidence_from_what_the_rounds_images_show(make_round, network) -> None:
    round = make_round(clients=8, number=4, network=network())
    verdict = defense(probe_size=6, relation_margin=0).judge(round)  # relations look at updates, not at images

    images, labels = draw_images(round.test_data, 8, seeded_generator(0, 0, 4))
    large = torch.nn.functional.interpolate(images[:4], size=(6, 6), mode="bilinear", align_corners=False)
    models = [round.global_model, *round.uploads]
    maps = class_maps(round.network, models, large, "2")
    statistics = statistics_of(round.network, round.global_model, round.uploads, images)
    assert (statistics is None) == (network is without_batchnorm)
    observed = Observed(4, round.client_ids, round.samples, Maps(maps[1:], maps[0]), statistics)
    found = Evidence(kinds_of(GradCAMAE.Settings(epochs=20))).judge(observed)
    assert verdict.scores == pytest.approx(found.scores.tolist(), rel=1e-5)
    assert verdict.threshold == 1
    assert verdict.flagged == [score > 1 for score in found.scores.tolist()]
    expected = torch.stack([found.shown.deviations[:, i, label] for i, label in enumerate(labels[:4])], dim=1)
    assert torch.allclose(verdict.evidence["heat_maps"], expected.float())
    assert set(verdict.seconds) == {"heat_maps", "evidence"}


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("channels", [4, 64])  # of 64, means are compared as well
def test_copies_are_left_out_and_told_why(make_round, noise, channels) -> None:
    round = copied(make_round(clients=10, network=tiny_cnn(channels)), [2, 5, 6], noise)
    assert defense().judge(round).excluded == [client in (2, 5, 6) for client in range(10)]
    verdict = defense(relation_margin=0).judge(round)  # copies are relatives as well
    assert [i for i, out in enumerate(verdict.excluded) if out] == [2, 5, 6]
    assert verdict.reasons == dict.fromkeys([102, 105, 106], "its heat maps are nearly equal to another client's")
    assert sum(verdict.weights) == pytest.approx(1)


def test_copies_among_means_are_told_apart_from_those_among_maps(make_round) -> None:
    blind = defense(copy_ratio=1e-12)  # to copies among maps
    verdict = blind.judge(copied(make_round(clients=10, network=tiny_cnn(channels=64)), [2, 5, 6]))
    assert [i for i, out in enumerate(verdict.excluded) if out] == [2, 5, 6]
    assert verdict.reasons == dict.fromkeys(
        [102, 105, 106], "the means that its layers produce are nearly equal to another client's"
    )


def test_maps_that_overflow_are_left_out_and_do_not_disturb_the_others(make_round) -> None:
    round = copied(make_round(clients=10), [2, 5])
    uploads = list(round.uploads)
    uploads[0] = {name: t * 1e30 if t.is_floating_point() else t for name, t in uploads[0].items()}
    verdict = defense().judge(replace(round, uploads=uploads))
    assert [i for i, out in enumerate(verdict.excluded) if out] == [0, 2, 5]
    assert verdict.scores[0] == math.inf
    assert verdict.reasons[100] == "its heat maps hold NaN or infinity"


def test_a_broken_global_model_accuses_nobody(make_round) -> None:
    round = make_round(clients=5)
    broken = {name: t * math.nan if t.is_floating_point() else t for name, t in round.global_model.items()}
    assert defense().judge(replace(round, global_model=broken)).excluded == [False] * 5


@pytest.mark.parametrize("clients", [1, 2, 3, 4])
def test_few_clients(make_round, clients) -> None:
    verdict = defense().judge(make_round(clients=clients))
    assert sum(verdict.weights) == pytest.approx(1)


def test_state_survives_a_restart(make_round) -> None:
    through, before, after = defense(), defense(), defense()
    for judge in (through, before):
        for number in (1, 2):
            judge.judge(make_round(clients=8, network=without_batchnorm(), number=number))
    after.restore(before.state())
    expected = through.judge(make_round(clients=8, network=without_batchnorm(), number=3))
    assert after.judge(make_round(clients=8, network=without_batchnorm(), number=3)).scores == expected.scores
    assert after.state() == through.state()
    assert list(after.state()["directions"]) == [1, 2, 3]


def test_images_are_enlarged_until_the_map_has_2_x_2_positions(make_round) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, stride=8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    network = nn.Sequential(*network[:2], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)).eval()
    data = make_round().test_data  # 8 x 8 pixels
    judge = defense()
    judge.prepare(network, data)
    assert judge.profile.probe.size == (16, 16)
    with pytest.raises(ValueError, match=r"1 position wide on images of 8 x 8 pixels.*Raise probe_size"):
        defense(probe_size="native").prepare(network, data)


@pytest.mark.parametrize(
    ("network", "layer", "size"),
    [
        # Maps of 4 x 4, then 1 x 1, and a linear layer that takes images of 8 x 8 only.
        (lambda: [nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 4, 1), nn.Flatten(), nn.Linear(4, 10)], "0", 8),
        # A convolution after the pooling, with one position at every size; the one before has 2 x 2 on 16 x 16.
        (lambda: [nn.Conv2d(1, 4, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 10, 1), nn.Flatten()], "0", 16),
        # The same, with a layer that has more positions on small images.
        (lambda: [nn.Conv2d(1, 4, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 10, 1), nn.Flatten()], "0", 16),
        (
            lambda: [models.VisionTransformer(8, 2, 2, 2, 8, 8, num_classes=10)],
            "0.encoder.layers.encoder_layer_1.ln_1",
            8,
        ),
    ],
    ids=["images of one size", "pooled", "pooled small", "transformer"],
)
def test_where_enlarging_does_not_help_an_earlier_layer_is_explained(make_round, network, layer, size) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*network()).eval()
    if isinstance(network[0], models.VisionTransformer):
        network[0].conv_proj = nn.Conv2d(1, 8, 2, 2)
    round = make_round(clients=6, network=network)
    judge = defense(native_images=2)
    judge.prepare(network, round.test_data)
    assert (judge.profile._layer, judge.profile.probe.size) == (layer, (size, size))
    verdict = judge.judge(round)
    assert not any(verdict.flagged)
    assert torch.isfinite(verdict.evidence["heat_maps"]).all()


def test_the_defense_does_not_touch_the_uploads_the_network_or_the_random_state(make_round) -> None:
    round = make_round(clients=6)
    before = [{name: tensor.clone() for name, tensor in upload.items()} for upload in round.uploads]
    network, random = state_of(round.network), torch.get_rng_state()
    defense().judge(round)
    assert torch.equal(random, torch.get_rng_state())
    for now, then in zip([*round.uploads, round.network.state_dict()], [*before, network], strict=True):
        assert all(torch.equal(now[name], then[name]) for name in then)


def test_the_maps_are_of_the_network_that_is_judged(make_round) -> None:
    assert defense().judge(make_round(network=tiny_cnn(), clients=5)).evidence["heat_maps"].shape[:2] == (5, 4)


def test_images_are_enlarged_while_no_stage_has_several_positions(make_round) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)).eval()
    judge = defense()
    judge.prepare(network, make_round().test_data)  # 8 x 8 pixels
    assert judge.profile.probe.size == (32, 32)


def test_large_maps_are_averaged(make_round) -> None:
    round = make_round(clients=5)
    shown = defense(probe_size=32).judge(round).evidence["heat_maps"]
    assert shown.shape == (5, 4, 8, 8)
    assert defense(probe_size=8).judge(round).evidence["heat_maps"].shape == (5, 4, 8, 8)
