"""A wrapper around a network, or what it packs its logits into, changes no verdict and no poisoned upload."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from fedml_gradcam_ae.attacks.shared.attackers import poisoned_uploads
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.networks.evaluating import answer
from odd import ODD
from tiny import digits, state_of, tiny_cnn

SMALL = {"probe_size": "native", "map_size": "native"}
TRAINING = {"local_epochs": 1, "local_learning_rate": 0.1, "local_optimizer": "sgd", "local_batch_size": 64}
DEFENSES = {
    "gradcam_ae, robust": {},
    "gradcam_ae, paper": {"profile": "paper", **SMALL},
    "gradcam_ae, paper, label": {"profile": "paper", "target_class": "label", **SMALL},
    "gradcam_ae, paper, layercam": {"profile": "paper", "map_method": "layercam", **SMALL},
    "gradcam_krum": SMALL,
    "deepsight": {"noise_inputs": 20},
    "d2mif": {"trees": 10},
    "fltrust": {**TRAINING, "root_images": 64},
}
STEPS = {"steps": 3, "images": 8}
ATTACKS = {
    "constrained_perturbation": {**STEPS, "refresh_statistics": True},
    "adaptive_heatmap": STEPS,
    "adaptive_heatmap, paper, layercam": {**STEPS, "profile": "paper", **SMALL, "map_method": "layercam"},
    "adaptive_heatmap, paper": {**STEPS, "profile": "paper", **SMALL, "probe": "own", "target_class": "label"},
    "mpaf": {},
    "uniform_noise": {"refresh_statistics": True},
}


def verdict(case, round, logits=None):
    cls = registry.defenses()[case.split(",")[0]]
    defense = cls(cls.Settings(**DEFENSES[case], logits=logits))
    defense.prepare(round.network, round.test_data)
    return defense.judge(round)


@pytest.fixture(scope="module")
def plain(make_round):
    return {case: verdict(case, make_round()) for case in DEFENSES}


@pytest.mark.parametrize("case", DEFENSES)
@pytest.mark.parametrize("kind", ODD)
def test_every_defense_judges_as_on_the_plain_network(make_round, plain, case, kind) -> None:
    build, logits = ODD[kind]
    round = make_round(network=build())
    found = verdict(case, round, logits)
    assert found.scores == pytest.approx(plain[case].scores, rel=1e-6, abs=1e-9)
    assert found.flagged == plain[case].flagged
    if found.model is None:
        assert found.weights == plain[case].weights
    else:
        assert list(found.model) == list(round.global_model)


@pytest.mark.parametrize("case", ATTACKS)
@pytest.mark.parametrize("kind", ODD)
def test_every_attack_uploads_what_it_uploads_for_the_plain_network(make_round, case, kind) -> None:
    def poison(network, logits=None):
        cls = registry.attacks()[case.split(",")[0]]
        keys = {"logits": logits} if "logits" in cls.Settings.model_fields else {}
        settings = cls.Settings(**ATTACKS[case], **keys)
        return poisoned_uploads(cls(settings), settings, make_round(network=network), [1, 4])

    build, logits = ODD[kind]
    for upload, expected in zip(poison(build(), logits), poison(tiny_cnn()), strict=True):
        for found, wanted in zip(upload.values(), expected.values(), strict=True):
            assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ODD)
def test_flcert_votes_and_label_flip_counts_classes(make_round, kind) -> None:
    build, logits = ODD[kind]
    round, expected = make_round(network=build()), make_round()
    images = digits()[0][:20]
    votes = []
    for one, key in ((round, logits), (expected, None)):
        cls = registry.defenses()["flcert"]
        defense = cls(cls.Settings(groups=3, logits=key))
        defense.judge(one)
        votes.append(defense.predictor(one.network)(images))
    assert torch.equal(*votes)
    flip = registry.attacks()["label_flip"]
    flipped = flip(flip.Settings(logits=logits)).poison_data(round.network, [(images, torch.arange(20) % 10)])
    assert next(iter(flipped))[1].tolist() == [9 - i % 10 for i in range(20)]


def test_a_network_is_left_as_it_was(make_round) -> None:
    network = nn.DataParallel(tiny_cnn())
    before = state_of(network)
    round = make_round(network=network)
    for case in DEFENSES:
        round.network.train()
        verdict(case, round)
        assert all(module.training for module in round.network.modules())
        assert not any(module._forward_hooks for module in round.network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in round.network.state_dict().items())


def one_output(shape):
    """For the digits 0 and 1."""
    layers = tiny_cnn()
    layers[5] = nn.Linear(16, 1)
    return nn.Sequential(*layers, nn.Flatten(*shape))


@pytest.mark.parametrize("shape", [(0,), (1,)], ids=["(images,)", "(images, 1)"])
@pytest.mark.parametrize("case", DEFENSES)
def test_one_output_is_that_of_two_classes(make_round, case, shape) -> None:
    """The same as from a network whose two outputs differ by it."""
    images, labels = digits()
    two = labels < 2
    data = [(images[two][:64], labels[two][:64, None].float())]

    class Two(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.inner(x).flatten()
            return torch.stack([-z / 2, z / 2], 1)

    torch.manual_seed(0)
    network = one_output(shape)
    found, expected = (verdict(case, make_round(network=one, test_data=data)) for one in (network, Two(network)))
    assert found.scores == pytest.approx(expected.scores, rel=1e-6, abs=1e-9)
    if case != "deepsight":  # which sees as much in one class as in the other, so that no client is suspicious
        assert len(set(found.scores)) > 1


def refused(case, make_round, network, message, **fields) -> None:
    round = make_round(network=network, **fields)
    cls = registry.defenses()[case.split(",")[0]]
    defense = cls(cls.Settings(**DEFENSES[case]))
    with pytest.raises(ValueError, match=message):
        defense.prepare(round.network, round.test_data)


@pytest.mark.parametrize("case", DEFENSES)
def test_what_has_no_logits_is_refused_at_the_start_and_described(make_round, case) -> None:
    maps = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1))
    refused(case, make_round, maps, r"logits of shape \(images, classes\).*found a tensor of shape \(1, 4, 8, 8\)")
    text = ODD["tuple"][0]()
    text.form = lambda scores: {"boxes": scores[None], "names": "a"}
    refused(case, make_round, text, r"returns dict \('boxes': a tensor of shape \(1, 1, 10\).*'names': str\).*logits")


@pytest.mark.parametrize("case", DEFENSES)
def test_a_key_that_is_not_there_is_named_with_those_that_are(make_round, case) -> None:
    network = ODD["dict, by key"][0]()
    cls = registry.defenses()[case.split(",")[0]]
    defense = cls(cls.Settings(**DEFENSES[case], logits="c"))
    with pytest.raises(ValueError, match=r"which has no 'c'. It has: 'a', 'b'\."):
        defense.prepare(network, make_round().test_data)


@pytest.mark.parametrize("case", DEFENSES)
def test_images_that_do_not_fit_the_network_are_refused_in_words(make_round, case) -> None:
    images, labels = digits()
    data = [(images[:64].expand(-1, 3, -1, -1), labels[:64])]
    refused(
        case,
        make_round,
        tiny_cnn(),
        r"cannot run on images of 3 x 8 x 8 numbers \(torch.float32, cpu\)",
        test_data=data,
    )


class Unsqueezing(nn.Module):
    """Takes images without channels, or pixels in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = tiny_cnn()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = round((x.numel() / len(x)) ** 0.5)
        return self.layers(x.reshape(len(x), 1, side, side))


@pytest.mark.parametrize("case", DEFENSES)
@pytest.mark.parametrize("start", [1, 2], ids=["rows", "no channels"])
def test_networks_that_add_the_channels_themselves(make_round, plain, case, start) -> None:
    images, labels = digits()
    data = [(images[:64].flatten(1) if start == 1 else images[:64, 0], labels[:64])]
    round = make_round(network=Unsqueezing(), test_data=data)
    expected = verdict(case, make_round(test_data=[(images[:64], labels[:64])]))
    assert verdict(case, round).scores == pytest.approx(expected.scores, rel=1e-6, abs=1e-9)


def labels_in(form):
    images, labels = digits()
    images, labels = images[:64], labels[:64]
    forms = {
        "(images, 1)": labels[:, None],
        "one-hot": nn.functional.one_hot(labels, 10).float(),
        "float64": labels.double(),
        "uint8": labels.to(torch.uint8),
    }
    return [(images, forms[form])]


@pytest.mark.parametrize("case", DEFENSES)
@pytest.mark.parametrize("form", ["(images, 1)", "one-hot", "float64", "uint8"])
def test_labels_in_every_form(make_round, case, form) -> None:
    images, labels = digits()
    expected = verdict(case, make_round(test_data=[(images[:64], labels[:64])]))
    assert verdict(case, make_round(test_data=labels_in(form))).scores == expected.scores


@pytest.mark.parametrize("case", DEFENSES)
@pytest.mark.parametrize("none", [-1, -100, 10, 255])
def test_images_without_a_label_of_the_networks_do_no_harm(make_round, case, none) -> None:
    """All but eight images are without one, so that every round meets some."""
    images, labels = digits()
    given = labels[:64].clone()
    given[8:] = none
    found = verdict(case, make_round(test_data=[(images[:64], given)]))
    assert all(score < float("inf") for score in found.scores)
    if case in ("d2mif", "fltrust", "gradcam_ae, paper, label"):
        refused(case, make_round, tiny_cnn(), "None of the 64 images can be used: 64 have no label",
                test_data=[(images[:64], torch.full((64,), none))])  # fmt: skip
    else:
        verdict(case, make_round(test_data=[(images[:64], torch.full((64,), none))]))


@pytest.mark.parametrize("case", DEFENSES)
def test_nan_among_the_test_images_blames_no_client(make_round, case) -> None:
    images, labels = (tensor[:64].clone() for tensor in digits())
    images[4:] = torch.nan
    left = [(images[:4], labels[:4])]
    found, expected = (verdict(case, make_round(test_data=data)) for data in ([(images, labels)], left))
    assert all(score < float("inf") for score in found.scores)
    if case in ("gradcam_ae, robust", "fltrust"):  # these use all four images, in some order
        assert found.scores == pytest.approx(expected.scores, rel=1e-2, abs=1e-3)
    refused(case, make_round, tiny_cnn(), "64 hold NaN or infinity", test_data=[(images * torch.nan, labels)])


@pytest.mark.parametrize("case", DEFENSES)
def test_data_that_can_be_read_once_are_refused(make_round, case) -> None:
    images, labels = digits()
    refused(case, make_round, tiny_cnn(), "read only once", test_data=iter([(images, labels)]))


@pytest.mark.parametrize("case", DEFENSES)
def test_distributed_data_parallel(make_round, plain, case, tmp_path) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        network = nn.parallel.DistributedDataParallel(tiny_cnn())
        assert verdict(case, make_round(network=network)).scores == pytest.approx(plain[case].scores, rel=1e-6)
    finally:
        torch.distributed.destroy_process_group()


def test_googlenet_is_trained_by_fltrust_and_judged_by_heat_maps(make_round) -> None:
    torch.manual_seed(0)
    network = models.googlenet(num_classes=10, aux_logits=True, init_weights=False)
    images, labels = torch.rand(8, 3, 64, 64), torch.arange(8)
    round = make_round(3, network=network, test_data=[(images, labels)])
    for case in ("fltrust", "gradcam_ae, robust"):
        found = verdict(case, round)
        assert len(set(found.scores)) == (3 if case == "fltrust" else 1)  # three are too few for robust to score


def test_images_too_small_for_training_are_refused_at_the_start(make_round) -> None:
    network = models.googlenet(num_classes=10, aux_logits=True, init_weights=False)
    data = [(torch.rand(1, 3, 16, 16), torch.arange(1))]  # one image of one position: nothing to normalize by
    refused("fltrust", make_round, network, "cannot be trained on images of 3 x 16 x 16 numbers", test_data=data)


class SharesALayer(nn.Module):
    """One layer under two names, and one tensor in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.again, self.other = self.first, nn.Conv2d(4, 4, 3, padding=1)
        self.other.weight = self.first.weight
        self.head = nn.Linear(4, 10)

    def forward(self, images):
        features = self.other(self.again(self.first(self.stem(images)).relu()).relu()).relu()
        return self.head(features.mean(dim=(2, 3)))


def test_a_network_that_shares_a_layer_is_run_on_other_tensors_and_left_as_it_was() -> None:
    torch.manual_seed(0)
    network, other, images = SharesALayer(), SharesALayer(), torch.randn(3, 1, 8, 8)
    before = {name: (id(tensor), tensor.detach().clone()) for name, tensor in network.named_parameters()}
    tensors = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    assert torch.equal(answer(network, tensors, images), other(images))
    after = {name: (id(tensor), tensor) for name, tensor in network.named_parameters()}
    assert before.keys() == after.keys()
    assert all(before[name][0] == after[name][0] and torch.equal(before[name][1], after[name][1]) for name in before)
