"""Backdoors by hand: which pixels change, which labels, which uploads; and which mistakes stop a run at the start."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedml_gradcam_ae.attacks.badnets import BadNets
from fedml_gradcam_ae.attacks.blended import Blended
from fedml_gradcam_ae.attacks.dba import DistributedBackdoor
from fedml_gradcam_ae.attacks.label_flip import LabelFlip, flipped
from fedml_gradcam_ae.attacks.semantic import Semantic, measure
from fedml_gradcam_ae.attacks.shared.data_poisoning import DataPoisoning, PoisoningSettings
from fedml_gradcam_ae.attacks.shared.poisoned_batches import PoisonedBatches, relabeled
from fedml_gradcam_ae.attacks.shared.triggers import PixelRange
from fedml_gradcam_ae.contract.settings import SettingsError, read_settings
from flat import flat_round, update
from tiny import digits, state_of, tiny_cnn


def batch(*labels, channels=1, size=4):
    """Images of one value each: 0, 1, 2, ..."""
    values = torch.arange(len(labels), dtype=torch.float32)[:, None, None, None]
    return values.expand(-1, channels, size, size).clone(), torch.tensor(labels)


def trained_on(attack, data, **who):
    pairs = list(attack.poison_data(torch.nn.Identity(), data, **who))
    return torch.cat([images for images, _ in pairs]), torch.cat([labels for _, labels in pairs])


def test_a_patch_is_bright_in_its_corner_and_nowhere_else() -> None:
    images, labels = batch(4, 5, 6, 7)
    found, changed = trained_on(BadNets(BadNets.Settings(target=9, trigger_size=2)), [(images, labels)])
    assert changed.tolist() == [9, 9, 6, 7]
    assert found[1, 0].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 3, 3], [1, 1, 3, 3]]
    assert torch.equal(found[2:], images[2:])
    assert torch.equal(images, batch(4, 5, 6, 7)[0])  # the attacker's own images stay


@pytest.mark.parametrize(
    ("position", "row", "column"),
    [("top_left", 0, 0), ("top_right", 0, 2), ("bottom_left", 3, 0), ("bottom_right", 3, 2), ("center", 1, 1)],
)
def test_a_patch_may_be_elsewhere(position, row, column) -> None:
    images = torch.zeros(1, 1, 4, 3)
    settings = BadNets.Settings(share=1.0, trigger_size=1, position=position, trigger_value=5.0)
    found, _ = trained_on(BadNets(settings), [(images, torch.tensor([1]))])
    expected = torch.zeros(4, 3)
    expected[row, column] = 5
    assert torch.equal(found[0, 0], expected)


def test_the_patch_takes_each_channels_own_largest_or_smallest_pixel() -> None:
    """As in normalized images, where white is another number in each channel."""
    images = torch.zeros(2, 3, 2, 2)
    images[0, :, 0, 0], images[1, :, 0, 1] = torch.tensor([2.1, 2.2, 2.6]), torch.tensor([-2.1, -2.0, -1.8])
    for value, color in [("high", [2.1, 2.2, 2.6]), ("low", [-2.1, -2.0, -1.8])]:
        settings = BadNets.Settings(share=1.0, trigger_size=1, trigger_value=value)
        found, _ = trained_on(BadNets(settings), [(images, torch.tensor([1, 2]))])
        assert torch.equal(found[:, :, 1, 1], torch.tensor([color] * 2))
    settings = BadNets.Settings(share=1.0, trigger_size=1, pixel_high=9.0)
    found, _ = trained_on(BadNets(settings), [(images, torch.tensor([1, 2]))])
    assert found[0, :, 1, 1].tolist() == [9.0] * 3


def test_each_of_four_attackers_has_a_quarter_and_the_test_has_the_whole() -> None:
    attack = DistributedBackdoor(DistributedBackdoor.Settings(share=1.0, trigger_size=3, trigger_value=1.0))
    images, labels = torch.zeros(1, 1, 4, 4), torch.tensor([2])
    parts = [trained_on(attack, [(images, labels)], attacker=i, attackers=4)[0][0, 0] for i in range(4)]
    assert [part.nonzero().tolist() for part in parts] == [
        [[1, 1], [1, 2], [2, 1], [2, 2]],
        [[1, 3], [2, 3]],
        [[3, 1], [3, 2]],
        [[3, 3]],
    ]
    whole, wanted = attack.triggered(images, labels)
    assert torch.equal(whole[0, 0], sum(parts))
    assert whole[0, 0, 1:, 1:].tolist() == [[1] * 3] * 3
    assert wanted.tolist() == [0]


@pytest.mark.parametrize(
    ("attackers", "pixels"), [(1, [[9]]), (2, [[6], [3]]), (3, [[5], [2], [2]]), (6, [[4], [2], [2], [1], [4], [2]])]
)
def test_fewer_attackers_share_all_quarters_and_more_take_turns(attackers, pixels) -> None:
    attack = DistributedBackdoor(DistributedBackdoor.Settings(share=1.0, trigger_size=3, trigger_value=1.0))
    data = [(torch.zeros(1, 1, 4, 4), torch.tensor([2]))]
    found = [trained_on(attack, data, attacker=i, attackers=attackers)[0] for i in range(attackers)]
    assert [[int(images.sum())] for images in found] == pixels


def test_a_blended_pattern_is_the_same_for_all_and_mixed_in_by_its_share() -> None:
    images, labels = batch(4, 5)  # pixels of 0 and of 1, so that patterns are from 0 to 1
    attack = Blended(Blended.Settings(target=3, share=1.0, alpha=0.25))
    found, changed = trained_on(attack, [(images, labels)])
    again, _ = trained_on(attack, [(images, labels)], attacker=1, attackers=2)
    pattern = found[0, 0] / 0.25
    assert 0 <= pattern.min() < 0.3 < 0.7 < pattern.max() <= 1
    assert torch.allclose(found[1, 0], 0.75 + 0.25 * pattern)
    assert torch.equal(found, again)
    assert changed.tolist() == [3, 3]
    other, _ = trained_on(Blended(Blended.Settings(share=1.0, alpha=0.25, seed=1)), [(images, labels)])
    assert not torch.allclose(other, found)


def test_the_share_holds_over_all_batches_however_small() -> None:
    data = [batch(*[5] * size) for size in (3, 1, 1, 4, 1)]
    for share, expected in [(0.5, 5), (0.2, 2), (0.0, 0), (1.0, 10), (0.7, 7)]:
        _, labels = trained_on(BadNets(BadNets.Settings(share=share)), data)
        assert int((labels == 0).sum()) == expected


def test_batches_keep_their_form() -> None:
    attack = BadNets(BadNets.Settings(target=1, share=1.0, trigger_size=1))
    images = torch.zeros(2, 1, 2, 2)
    (mapping,) = attack.poison_data(torch.nn.Identity(), [{"x": images, "y": [0, 2], "name": "a"}])
    assert (mapping["y"].tolist(), mapping["name"]) == ([1, 1], "a")
    ((_, column, more),) = attack.poison_data(torch.nn.Identity(), [[images, torch.tensor([[0], [2]]), "b"]])
    assert (column.tolist(), more) == ([[1], [1]], "b")
    ((_, rows),) = attack.poison_data(torch.nn.Identity(), [(images, torch.eye(3)[[0, 2]])])
    assert rows.tolist() == [[0, 1, 0]] * 2
    assert relabeled(torch.tensor([1, 2]), torch.tensor([False, False]), 0).tolist() == [1, 2]


def test_every_pass_is_poisoned_anew_and_shuffled_as_the_data_are() -> None:
    images, labels = digits()
    data = DataLoader(TensorDataset(images[:40], labels[:40]), 8, shuffle=True)
    attack = BadNets(BadNets.Settings(target=0, share=0.5))
    poisoned = attack.poison_data(torch.nn.Identity(), data)
    assert len(poisoned) == 5
    passes = [torch.cat([images for images, _ in poisoned]) for _ in range(2)]
    stamped = [one[(one[:, 0, -3:, -3:] == 1).flatten(1).all(dim=1)] for one in passes]
    assert [len(one) for one in stamped] == [20, 20]
    assert not torch.equal(*stamped)


def grays(*values):
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 2, 2).clone()


def test_the_tail_of_a_class_is_relabeled_and_repeated() -> None:
    images, labels = grays(0.9, 0.1, 0.8, 0.2, 0.3, 0.4), torch.tensor([3, 3, 7, 7, 7, 7])
    attack = Semantic(Semantic.Settings(source=7, property="bright", target=0, tail=0.5, share=0.0))
    found, changed = trained_on(attack, [(images, labels)])
    assert changed.tolist() == [3, 3, 0, 7, 7, 0]  # 0.8 and 0.4 are the brighter half of the sevens
    assert torch.equal(found, images)
    attack = Semantic(Semantic.Settings(source=7, property="bright", target=0, tail=0.5, share=0.5))
    found, changed = trained_on(attack, [(images, labels)])
    assert changed.tolist() == [0, 0, 0, 7, 7, 0]
    assert sorted(found[:2].amax(dim=(1, 2, 3)).tolist()) == pytest.approx([0.4, 0.8])
    assert torch.equal(found[3:], images[3:])


def test_dark_images_and_green_ones() -> None:
    images, labels = grays(0.1, 0.8, 0.4), torch.tensor([7, 7, 7])
    attack = Semantic(Semantic.Settings(source=7, property="dark", share=0.0))
    assert trained_on(attack, [(images, labels)])[1].tolist() == [0, 7, 7]
    colors = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.5, 0.0], [0.9, 0.0, 0.0]])[:, :, None, None].expand(-1, -1, 2, 2)
    attack = Semantic(Semantic.Settings(source=7, property="green", share=0.0, pixel_low=0.0, pixel_high=1.0))
    assert trained_on(attack, [(colors, labels)])[1].tolist() == [7, 0, 7]


def test_a_figure_that_leans_to_the_left_or_to_the_right() -> None:
    left, right = torch.eye(3), torch.eye(3).flip(1)  # as the strokes of a backslash and of a slash
    images = torch.stack([right, left, torch.ones(3, 3)])[:, None]
    for wanted, expected in [("leans_left", [6, 0, 6]), ("leans_right", [0, 6, 6])]:
        attack = Semantic(Semantic.Settings(property=wanted, share=0.0))
        assert trained_on(attack, [(images, torch.tensor([6, 6, 6]))])[1].tolist() == expected
    # Rows and columns 0, 1/3 and 2/3, a third of the weight on each: (0 + 1/9 + 4/9) / 3 - 1/3 * 1/3 = 2/27.
    pixels = PixelRange(torch.zeros(1), torch.ones(1))
    assert measure(images, "leans_left", pixels).tolist() == pytest.approx([-2 / 27, 2 / 27, 0.0], abs=1e-6)


def test_an_attacker_without_the_class_trains_honestly() -> None:
    images, labels = grays(0.1, 0.8), torch.tensor([3, 4])
    found, changed = trained_on(Semantic(), [(images, labels)])
    assert torch.equal(found, images)
    assert changed.tolist() == [3, 4]


def test_the_tail_of_the_test_images_is_that_of_all_of_them_not_of_a_batch() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 10))
    batches = [(grays(0.9, 0.8), torch.tensor([7, 7])), (grays(0.2, 0.95, 0.1), torch.tensor([7, 3, 7]))]
    attack = Semantic(Semantic.Settings(source=7, property="bright", tail=0.5))
    attack.prepare(network, batches)
    found = [attack.triggered(images, labels) for images, labels in batches]
    assert [len(images) for images, _ in found] == [2, 0]
    assert found[0][1].tolist() == [0, 0]


def test_one_class_is_flipped_to_another_and_what_that_wants() -> None:
    images, labels = batch(0, 3, 4, 3)
    for settings, expected in [
        ({"source": 3, "target": 4}, [0, 4, 4, 4]),
        ({"source": 3}, [0, 6, 4, 6]),
        ({"target": 4}, [4, 4, 4, 4]),
    ]:
        attack = LabelFlip(LabelFlip.Settings(classes=10, **settings))
        assert trained_on(attack, [(images, labels)])[1].tolist() == expected
        shown, wanted = attack.triggered(images, torch.tensor([0, 3, 4, -1]))
        assert wanted.tolist() == [new for old, new in zip([0, 3, 4], expected, strict=False) if old != new]
        assert len(shown) == len(wanted)
    assert LabelFlip(LabelFlip.Settings(classes=10)).triggered(images, labels) is None


def test_one_hot_labels_of_one_class_are_flipped() -> None:
    attack = LabelFlip(LabelFlip.Settings(classes=3, source=0, target=2))
    ((_, rows),) = attack.poison_data(torch.nn.Identity(), [(torch.zeros(2, 1, 2, 2), torch.eye(3)[:2])])
    assert rows.tolist() == [[0, 0, 1], [0, 1, 0]]


def test_the_trigger_is_tested_on_the_images_of_other_classes() -> None:
    images, labels = batch(4, 9, 5, -1)
    labels = torch.tensor([4, 9, 5, -1])
    attack = BadNets(BadNets.Settings(target=9, trigger_size=1, trigger_value=7.0))
    shown, wanted = attack.triggered(images, labels)
    assert shown[:, 0, 3, 3].tolist() == [7, 7]
    assert shown[:, 0, 0, 0].tolist() == [0, 2]
    assert wanted.tolist() == [9, 9]


def changed_uploads(round, attackers, **settings):
    class Any(DataPoisoning):
        Settings = PoisoningSettings

    return [update(round, upload) for upload in Any(PoisoningSettings(**settings)).poison(round, attackers)]


def test_uploads_stay_as_trained_unless_they_are_to_change(make_round) -> None:
    round = make_round()
    assert BadNets().poison(round, [1, 4]) == [round.uploads[1], round.uploads[4]]


def test_model_replacement_by_hand(make_round) -> None:
    drawn = np.array([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0], [0.0, 30.0]])
    round = flat_round(make_round, drawn, start=0.5)
    assert np.allclose(changed_uploads(round, [0], scale=2.0), [[6, 8]])
    assert np.allclose(changed_uploads(round, [0, 1], scale="auto"), [[6, 8], [2, 0]])  # 4 clients, 2 attackers
    # the honest updates are 1, 2 and 30 long; a bound of 1.25 * 2 leaves half of the attacker's 5
    assert np.allclose(changed_uploads(round, [0], norm_bound=1.25), [[1.5, 2]])
    assert np.allclose(changed_uploads(round, [0], scale="auto", norm_bound=1.25), [[1.5, 2]])
    assert np.allclose(changed_uploads(round, [1], scale=0.5, norm_bound=1.0), [[0.5, 0]])


def test_an_average_with_replaced_models_is_the_attackers_own(make_round) -> None:
    drawn = np.vstack([np.zeros((4, 3)), np.full((1, 3), 2.0)])
    round = flat_round(make_round, drawn)
    (poisoned,) = changed_uploads(round, [4], scale="auto")
    assert np.allclose((drawn[:4].sum(axis=0) + poisoned) / 5, 2.0)


def test_a_broken_honest_upload_does_not_count_for_the_bound(make_round) -> None:
    drawn = np.array([[3.0, 4.0], [1.0, 0.0], [np.inf, 0.0]])
    round = flat_round(make_round, drawn)
    assert np.allclose(changed_uploads(round, [0], norm_bound=2.0), [[1.2, 1.6]])
    assert np.allclose(changed_uploads(round, [0, 1, 2], norm_bound=1.0)[:2], [[1.8, 2.4], [1.0, 0.0]])


def test_scaling_leaves_the_statistics_as_trained(make_round) -> None:
    round = make_round()
    uploads = [{**u, "1.running_mean": torch.full((4,), float(i))} for i, u in enumerate(round.uploads)]
    (poisoned,) = BadNets(BadNets.Settings(scale=5.0)).poison(make_round(uploads=uploads), [2])
    assert poisoned["1.running_mean"].tolist() == [2.0] * 4


def trained(attack, network, data):
    """One step of SGD for each batch, as FedML's trainer makes it."""
    step = torch.optim.SGD(network.parameters(), lr=0.1)
    for images, labels in attack.poison_data(network, data):
        step.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        step.step()


def test_neurotoxin_does_not_move_what_the_last_global_update_moved_most() -> None:
    images, labels = digits()
    data = [(images[:16], labels[:16]), (images[16:32], labels[16:32])]
    network, attack = tiny_cnn(), BadNets(BadNets.Settings(neurotoxin=0.25))

    def flat():
        return torch.cat([parameter.detach().reshape(-1).clone() for parameter in network.parameters()])

    first = flat()
    trained(attack, network, data)
    moved = (flat() != first).float().mean()
    assert moved > 0.9  # the first round knows no global update
    quarter = torch.randperm(len(first), generator=torch.Generator().manual_seed(0))[: len(first) // 4]
    change = torch.full((len(first),), 0.01)
    change[quarter] = -0.5  # the server's new model moved a quarter of the weights most
    for _ in range(2):  # two attackers of the same round
        torch.nn.utils.vector_to_parameters(first + change, network.parameters())
        trained(attack, network, data)
        after = flat() - (first + change)
        assert after[quarter].abs().max() == 0
        assert (after != 0).float().mean() > 0.7
    assert not any(parameter._backward_hooks for parameter in network.parameters())


def test_a_pass_that_stops_early_leaves_no_hook_behind() -> None:
    images, labels = digits()
    network, attack = tiny_cnn(), BadNets(BadNets.Settings(neurotoxin=0.25))
    for _ in range(2):
        for parameter in network.parameters():
            parameter.data += 0.1
        passing = iter(attack.poison_data(network, [(images[:8], labels[:8])] * 2))
        next(passing)
    assert any(parameter._backward_hooks for parameter in network.parameters())
    del passing  # as when an error ends the training
    assert not any(parameter._backward_hooks for parameter in network.parameters())


TEST_DATA = [(digits()[0][:40], digits()[1][:40])]


@pytest.mark.parametrize(
    ("attack", "settings", "message"),
    [
        (
            BadNets,
            {"trigger_size": 9},
            r"trigger_size: a square of 9 x 9 pixels does not fit on images of 8 x 8; at most",
        ),
        (DistributedBackdoor, {"trigger_size": 9}, "does not fit on images of 8 x 8"),
        (BadNets, {"target": 10}, r"target: there is no class 10; there are 10 classes, 0 to 9"),
        (Blended, {"target": 12}, "target: there is no class 12"),
        (Semantic, {"source": 11}, "source: there is no class 11"),
        (Semantic, {"property": "green"}, "property: green needs images of three channels, found 1"),
        (LabelFlip, {"source": 10}, "source: there is no class 10"),
        (LabelFlip, {"target": 10}, "target: there is no class 10"),
        (LabelFlip, {"source": 3, "classes": 11}, "classes: 11, but the network's output has 10 classes"),
        (LabelFlip, {"source": 3, "classes": 7}, "source: 3 is the middle one of 7 classes, .* name a target"),
    ],
)
def test_what_does_not_fit_the_network_and_the_images_is_refused_before_the_training(attack, settings, message) -> None:
    with pytest.raises(SettingsError, match=message):
        attack(attack.Settings(**settings)).prepare(tiny_cnn(), TEST_DATA)


@pytest.mark.parametrize("shape", [(784,), (28, 28)])
@pytest.mark.parametrize("attack", [BadNets, Blended, DistributedBackdoor, Semantic])
def test_images_without_channels_are_refused_before_the_training(attack, shape) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(SettingsError, match=r"images of shape \(channels, height, width\), found \(.*28|784"):
        attack().prepare(network, [(torch.rand(20, *shape), torch.arange(20) % 10)])


def test_labels_are_flipped_for_networks_in_double_precision() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    attack = LabelFlip()
    ((_, labels),) = attack.poison_data(network, [(torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 9]))])
    assert labels.tolist() == [9, 8, 0]


def test_one_hot_labels_are_flipped_among_the_classes_that_there_are() -> None:
    wide = torch.eye(6)
    assert flipped(wide, classes=4).argmax(dim=1).tolist() == [3, 2, 1, 0, 4, 5]
    assert flipped(wide, classes=10).argmax(dim=1).tolist() == [5, 4, 3, 2, 1, 0]
    assert flipped(wide, classes=10, source=1).argmax(dim=1).tolist() == [0, 4, 2, 3, 4, 5]


def test_a_source_class_without_test_images_is_refused() -> None:
    images, labels = digits()
    with pytest.raises(SettingsError, match=r"source: no test image is of class 6, .* images of \[0, 1, 2\]"):
        Semantic().prepare(tiny_cnn(), [(images[labels < 3], labels[labels < 3])])


@pytest.mark.parametrize(
    ("attack", "settings", "message"),
    [
        (BadNets, {"share": 1.5}, "share: expected less than or equal to 1, found 1.5"),
        (BadNets, {"share": -0.1}, "share: expected greater than or equal to 0, found -0.1"),
        (BadNets, {"position": "left"}, "position: expected .*'bottom_right'"),
        (BadNets, {"scale": 0}, "scale: expected greater than 0"),
        (BadNets, {"neurotoxin": 1.0}, "neurotoxin: expected less than 1"),
        (DistributedBackdoor, {"trigger_size": 1}, "trigger_size: expected greater than or equal to 2"),
        (Blended, {"alpha": 0.0}, "alpha: expected greater than 0"),
        (Semantic, {"source": 0}, "source and target must be two classes, found 0 for both"),
        (LabelFlip, {"source": 3, "target": 3}, "source and target must be two classes, found 3 for both"),
    ],
)
def test_settings_out_of_range_are_refused(attack, settings, message) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(attack.Settings, settings, "attack_params", "it")


def test_reading_the_batches_leaves_everybody_elses_random_numbers_and_the_network_alone() -> None:
    images, labels = digits()
    data = DataLoader(TensorDataset(images[:40], labels[:40]), 8)
    network = tiny_cnn().train()
    before, state = state_of(network), torch.get_rng_state()
    for attack in (BadNets(), Blended(), DistributedBackdoor(), Semantic(), LabelFlip(LabelFlip.Settings(source=1))):
        attack.prepare(network, data)
        attack.poison_data(network, data)
        assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_change_that_changes_nothing_keeps_the_batch_as_it_is() -> None:
    images, labels = [torch.zeros(1, 2, 2)] * 2, [1, 2]
    ((kept, same),) = PoisonedBatches([(images, labels)], lambda images, labels, count: (images, labels))
    assert kept is images
    assert same is labels
