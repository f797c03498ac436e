import logging
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fedml_gradcam_ae.networks.images import draw_images, seeded_generator

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


def broken(positions, value=torch.nan):
    images = IMAGES.clone()
    for position in positions:
        images[position, 0, 1, 1] = value
    return images


def forms(images, labels):
    """The same data as FedML's users give them."""
    return {
        "loader": DataLoader(TensorDataset(images, labels), batch_size=4),
        "batches": [(images[:3], labels[:3]), (images[3:], labels[3:])],
        "triples": [(images, labels, torch.arange(len(images)))],
        "loader of triples": DataLoader(TensorDataset(images, labels, torch.arange(len(images)))),
        "dicts": [{"pixel_values": images, "labels": labels}],
        "loader of dicts": DataLoader([{"image": i, "label": n} for i, n in zip(images, labels, strict=True)]),
        "arrays": [(images.numpy(), labels.numpy())],
        "lists": [(list(images), labels.tolist())],
        "a loader of whole batches": DataLoader([(images[:3], labels[:3]), (images[3:], labels[3:])], batch_size=None),
    }


@pytest.mark.parametrize("form", forms(IMAGES, LABELS))
def test_data_in_every_form(form) -> None:
    images, labels = draw_images(forms(IMAGES, LABELS)[form], 6, seeded_generator(0))
    assert torch.equal(images, IMAGES[labels])
    assert len(labels.unique()) == 6


@pytest.mark.parametrize("form", forms(IMAGES, LABELS))
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_images_with_nan_or_infinity_are_left_out_and_named(form, value, caplog) -> None:
    data = forms(broken([2, 7], value), LABELS)[form]
    with caplog.at_level(logging.WARNING, "fedml_gradcam_ae"):
        images, labels = draw_images(data, 10, seeded_generator(0))
    assert sorted(labels.tolist()) == [0, 1, 3, 4, 5, 6, 8, 9]
    assert torch.equal(images, IMAGES[labels])
    assert [record.getMessage() for record in caplog.records] == [
        "2 images are left out, since they hold NaN or infinity: positions 2, 7."
    ]


def test_others_are_drawn_in_the_place_of_those_left_out() -> None:
    for number in range(20):
        images, labels = draw_images(DataLoader(TensorDataset(broken(range(5)), LABELS)), 4, seeded_generator(number))
        assert sorted(set(labels.tolist())) == sorted(labels.tolist())
        assert len(labels) == 4
        assert labels.min() >= 5
        assert images.isfinite().all()


def test_data_without_any_usable_image_are_refused() -> None:
    with pytest.raises(ValueError, match=r"None of the 10 images can be used: 10 hold NaN or infinity\."):
        draw_images([(broken(range(10)), LABELS)], 2, seeded_generator(0))
    message = r"7 hold NaN or infinity, 3 have no label \(a whole number from 0 to 6\)"
    with pytest.raises(ValueError, match=message):
        draw_images([(broken(range(7)), LABELS)], 2, seeded_generator(0), classes=7)


@pytest.mark.parametrize("labels", [LABELS - 4, (LABELS - 4)[:, None], (LABELS - 4).double()])
def test_images_without_a_label_are_left_out_where_labels_are_needed(labels) -> None:
    data = DataLoader(TensorDataset(IMAGES, labels), batch_size=3)
    assert sorted(draw_images(data, 10, seeded_generator(0))[1].tolist()) == [0, 1, 2, 3, 4, 5]
    assert sorted(draw_images(data, 10, seeded_generator(0), classes=3)[1].tolist()) == [0, 1, 2]
    everything = draw_images(data, 10, seeded_generator(0), classes=3, labeled=False)
    assert sorted(everything[1].tolist()) == [-1] * 7 + [0, 1, 2]
    assert torch.equal(everything[0].sort(dim=0).values, IMAGES)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.float16, torch.int32])
def test_pixels_of_every_type_become_float32(dtype) -> None:
    images, labels = draw_images([(IMAGES.to(dtype), LABELS)], 5, seeded_generator(0))
    assert images.dtype == torch.float32
    assert torch.equal(images, IMAGES[labels])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([(IMAGES, LABELS[:9])], "10 images and 9 labels"),
        ([(IMAGES[:5], LABELS[:5]), (IMAGES[5:, :, :1], LABELS[5:])], r"one shape, found \(1, 1, 2\), \(1, 2, 2\)"),
        ([("images", LABELS)], "Images must be a tensor or an array, found str"),
        ([(IMAGES, torch.zeros(10, 4, 4))], r"Labels must have shape .*found \(10, 4, 4\)"),
        ([{"picture": IMAGES, "label": LABELS}], "A batch must hold images .*'picture', 'label'"),
    ],
)
def test_other_data_are_refused_in_words(data, message) -> None:
    with pytest.raises(ValueError, match=message):
        draw_images(data, 3, seeded_generator(0))
