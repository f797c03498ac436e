import pytest
import torch

from fedml_gradcam_ae.attacks.label_flip import LabelFlip
from tiny import digits, tiny_cnn

BATCHES = [(torch.zeros(3, 1, 8, 8), torch.tensor([0, 4, 9])), (torch.ones(1, 1, 8, 8), torch.tensor([5]))]


@pytest.mark.parametrize(("classes", "expected"), [(None, [9, 5, 0, 4]), (12, [11, 7, 2, 6])])
def test_a_label_becomes_its_mirror_image_and_pictures_stay(classes, expected) -> None:
    network = tiny_cnn().train()
    poisoned = LabelFlip(LabelFlip.Settings(classes=classes)).poison_data(network, BATCHES)
    assert torch.cat([labels for _, labels in poisoned]).tolist() == expected
    assert all(torch.equal(images, before) for (images, _), (before, _) in zip(poisoned, BATCHES, strict=True))
    assert len(poisoned) == 2
    assert network.training


def test_each_epoch_is_shuffled_as_the_data_are() -> None:
    images, labels = digits()
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images[:40], labels[:40]), 8, shuffle=True)
    torch.manual_seed(3)
    honest = [torch.cat([label for _, label in data]) for _ in range(2)]
    poisoned = LabelFlip(LabelFlip.Settings()).poison_data(tiny_cnn(), data)
    torch.manual_seed(3)
    flipped = [torch.cat([label for _, label in poisoned]) for _ in range(2)]
    assert [(9 - labels).tolist() for labels in flipped] == [labels.tolist() for labels in honest]
    assert honest[0].tolist() != honest[1].tolist()


def test_the_uploads_are_what_training_made_of_them(make_round) -> None:
    round = make_round()
    assert LabelFlip(LabelFlip.Settings()).poison(round, [1, 4]) == [round.uploads[1], round.uploads[4]]
