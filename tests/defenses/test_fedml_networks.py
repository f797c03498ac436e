"""`gradcam_ae` with its defaults on the image networks that `fedml.model.create` makes."""

from __future__ import annotations

import pytest
import torch
from fedml.model.cv.cnn import CNN_WEB, Cifar10FLNet, CNN_DropOut, CNN_OriginalFedAvg
from fedml.model.cv.mobilenet import mobilenet
from fedml.model.cv.mobilenet_v3 import MobileNetV3
from fedml.model.cv.resnet import resnet20
from fedml.model.cv.resnet_gn import resnet18

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE
from tiny import state_of

# The network, the shape of one image, the layer that is explained and the size of the images for it.
NETWORKS = {
    "CNN_DropOut": (lambda: CNN_DropOut(only_digits=False), (28, 28), "conv2d_2", 28),
    "CNN_OriginalFedAvg": (lambda: CNN_OriginalFedAvg(only_digits=True), (28, 28), "conv2d_2", 28),
    "CNN_WEB": (CNN_WEB, (3, 32, 32), "conv2", 32),
    "Cifar10FLNet": (Cifar10FLNet, (3, 32, 32), "conv2", 32),
    "resnet20": (lambda: resnet20(10), (3, 32, 32), "layer3", 32),
    # Its pooling has a fixed size, so that enlarged images do not fit.
    "resnet18_gn": (lambda: resnet18(num_classes=10), (3, 24, 24), "layer3", 24),
    "mobilenet": (lambda: mobilenet(class_num=10), (3, 32, 32), "conv4", 32),
    # Its last convolution comes after the pooling, so that its maps have one position at every size.
    "mobilenet_v3": (lambda: MobileNetV3(model_mode="LARGE", num_classes=10), (3, 32, 32), "out_conv1", 64),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_defaults_judge_it_and_find_a_ruined_upload(name) -> None:
    build, shape, layer, size = NETWORKS[name]
    torch.manual_seed(0)
    network = build().eval()
    generator = torch.Generator().manual_seed(1)
    start = state_of(network)
    common = {key: torch.randn(value.shape, generator=generator) for key, value in start.items()}

    def upload(own: float) -> dict[str, torch.Tensor]:
        return {
            key: value + 0.001 * common[key] + own * torch.randn(value.shape, generator=generator)
            if value.is_floating_point() and "running" not in key
            else value
            for key, value in start.items()
        }

    test_data = [(torch.rand(12, *shape, generator=generator), torch.arange(12) % 10)]
    round = Round(
        number=1,
        client_ids=range(6),
        uploads=[*(upload(0.001) for _ in range(5)), upload(10.0)],
        samples=[20] * 6,
        global_model=start,
        network=network,
        test_data=test_data,
    )
    defense = GradCAMAE()
    defense.prepare(network, test_data)
    assert (defense.profile._layer, defense.profile.probe.size) == (layer, (size, size))
    verdict = defense.judge(round)
    assert verdict.flagged == [False] * 5 + [True]
    assert all(torch.isfinite(torch.tensor(verdict.scores[:5])))
