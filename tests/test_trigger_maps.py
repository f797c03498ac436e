"""Pictures of what a backdoor's trigger does to heat maps: which image, which models, which maps."""

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from fedml_gradcam_ae.attacks.badnets import BadNets
from fedml_gradcam_ae.attacks.label_flip import LabelFlip
from fedml_gradcam_ae.attacks.semantic import Semantic
from fedml_gradcam_ae.hooks.trigger import image_with_trigger
from fedml_gradcam_ae.recording import pictures
from fedml_gradcam_ae.recording.events import Triggered
from fedml_gradcam_ae.recording.recorder import FolderRecorder
from fedml_gradcam_ae.recording.trigger_maps import MOST, trigger_maps


def network(pooled=True) -> nn.Module:
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(2)] if pooled else []
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *head, nn.Flatten(), nn.Linear(16 if pooled else 144, 3))


def event(net, clients=12, attackers=(1, 5, 6, 7, 8)) -> Triggered:
    images = torch.rand(2, 3, 6, 6)
    uploads = {client: {name: torch.randn_like(t) for name, t in net.state_dict().items()} for client in range(clients)}
    return Triggered(
        number=4,
        network=net,
        images=images,
        label=2,
        target=1,
        global_model=net.state_dict(),
        uploads=uploads,
        attackers=list(attackers),
    )


def test_the_image_is_the_one_of_another_class_that_the_square_changes_most() -> None:
    of_target = (torch.rand(2, 3, 6, 6), torch.tensor([1, 1]))  # data may be sorted by class
    data = [of_target, (torch.rand(4, 3, 6, 6), torch.tensor([1, -1, 2, 0]))]
    data[1][0][:2, :, 4:, 4:] = 0.0  # of the target, and of no class
    data[1][0][2, :, 4:, 4:] = 0.1
    data[1][0][3, :, 4:, 4:] = 0.9
    attack = BadNets(BadNets.Settings(target=1, trigger_size=2, pixel_high=1.0))
    images, label, target = image_with_trigger(attack, data)
    assert (label, target) == (2, 1)
    assert torch.equal(images[0], data[1][0][2])
    changed = images[0] != images[1]
    assert changed[:, 4:, 4:].all()
    assert changed.sum() == 3 * 2 * 2


@pytest.mark.parametrize(
    "attack",
    [
        LabelFlip(LabelFlip.Settings(source=2, target=1, classes=3)),
        Semantic(Semantic.Settings(source=2, property="bright", tail=1.0, target=1)),
        LabelFlip(LabelFlip.Settings(classes=3)),
    ],
)
def test_attacks_that_change_no_pixel_have_no_picture(attack) -> None:
    assert image_with_trigger(attack, [(torch.rand(4, 3, 6, 6), torch.tensor([1, 0, 2, 0]))]) is None


@pytest.mark.parametrize("data", [[], [(torch.rand(2, 3, 6, 6), torch.tensor([1, 1]))]])
def test_no_picture_without_an_image_of_another_class(data) -> None:
    assert image_with_trigger(BadNets(BadNets.Settings(target=1, trigger_size=2)), data) is None


def test_drawing_the_image_leaves_the_random_numbers_as_they_were() -> None:
    images = torch.utils.data.TensorDataset(torch.rand(4, 3, 6, 6), torch.tensor([0, 2, 2, 0]))
    before = torch.get_rng_state()
    image_with_trigger(
        BadNets(BadNets.Settings(target=1, trigger_size=2)), torch.utils.data.DataLoader(images, 2, shuffle=True)
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_model_some_attackers_and_some_honest_clients_are_shown() -> None:
    found = trigger_maps(event(network()))
    assert [model.name for model in found.models] == [
        "global model before",
        *(f"client {client}" for client in (1, 5, 6, 7)),
        *(f"client {client}" for client in (0, 2, 3, 4)),
    ]
    assert [model.malicious for model in found.models] == [False] + [True] * MOST + [False] * MOST


def test_each_map_is_captums_of_the_class_that_the_model_itself_answers_with() -> None:
    net = network(pooled=False)
    given = event(net)
    found = trigger_maps(given)
    own = network(pooled=False)
    for model, client in zip(found.models[1:], [1, 5, 6, 7, 0, 2, 3, 4], strict=True):
        own.load_state_dict(given.uploads[client])
        answers = own(given.images).argmax(dim=1)
        assert model.classes == tuple(answers.tolist())
        maps = LayerGradCam(own, own[0]).attribute(given.images, answers, relu_attributions=True)
        torch.testing.assert_close(model.maps, maps[:, 0].detach())


def test_images_are_enlarged_until_their_maps_have_several_positions() -> None:
    assert trigger_maps(event(network())).models[0].maps.shape == (2, 12, 12)
    assert trigger_maps(event(network(pooled=False))).models[0].maps.shape == (2, 6, 6)  # the network takes 6 x 6 only


def test_a_network_without_feature_maps_has_no_picture(tmp_path) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
    assert trigger_maps(event(flat)) is None
    FolderRecorder(tmp_path)(event(flat))
    assert list(tmp_path.iterdir()) == []


def test_the_picture_frames_attackers_and_marks_answers_that_they_want() -> None:
    found = trigger_maps(event(network()))
    figure = pictures.trigger(found)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 2 * (1 + len(found.models))
    assert sum(bool(axes.patches) for axes in shown) == 2 * MOST
    wanted = sum(model.classes[1] == found.target for model in found.models)
    red = [axes for axes in shown if axes.title.get_color() == pictures.ATTACKER]
    assert len(red) == wanted > 0
    assert {axes.get_title() for axes in red} == {"class 1"}


def test_it_is_drawn_into_the_folder_of_the_run(tmp_path) -> None:
    FolderRecorder(tmp_path, pictures=False)(event(network()))
    assert list(tmp_path.iterdir()) == []
    FolderRecorder(tmp_path)(event(network()))
    assert [path.name for path in tmp_path.iterdir()] == ["round-004-trigger-maps.png"]
