import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fedml_gradcam_ae.images import draw_images, seeded_generator

IMAGES = torch.arange(40, dtype=torch.float32).view(10, 1, 2, 2)
LABELS = torch.arange(10)
DATA = TensorDataset(IMAGES, LABELS)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(DATA)


SOURCES = {
    "loader": DataLoader(DATA, batch_size=4),
    "shuffling loader": DataLoader(DATA, batch_size=4, shuffle=True),
    "list of batches": [(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])],
    "stream": DataLoader(Stream(), batch_size=4),
}


@pytest.mark.parametrize("source", SOURCES)
def test_images_come_with_their_labels_and_without_repetition(source) -> None:
    images, labels = draw_images(SOURCES[source], 6, seeded_generator(0))
    assert torch.equal(images, IMAGES[labels])
    assert len(labels.unique()) == 6
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("source", SOURCES)
def test_no_more_images_than_there_are(source) -> None:
    assert draw_images(SOURCES[source], 99, seeded_generator(0))[1].sort().values.tolist() == list(range(10))


def test_the_same_seed_and_round_draw_the_same_images_and_others_differ() -> None:
    first, again, other = (draw_images(DataLoader(DATA), 5, seeded_generator(0, r))[1].tolist() for r in (1, 1, 2))
    assert first == again != other


def test_every_image_can_be_drawn() -> None:
    drawn = {int(draw_images(SOURCES["loader"], 1, seeded_generator(0, r))[1]) for r in range(200)}
    assert drawn == set(range(10))


@pytest.mark.parametrize("source", SOURCES)
def test_the_trainings_random_state_is_left_alone(source) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    draw_images(SOURCES[source], 3, seeded_generator(0))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()


@pytest.mark.parametrize("empty", [None, [], DataLoader(TensorDataset(IMAGES[:0], LABELS[:0]))])
def test_empty_data_are_refused(empty) -> None:
    with pytest.raises(ValueError, match="empty: at least one image is needed"):
        draw_images(empty, 1, seeded_generator(0))


def test_batches_without_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a pair \(images, labels\), found Tensor"):
        draw_images([IMAGES], 1, seeded_generator(0))
