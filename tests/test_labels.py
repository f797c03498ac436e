"""What a label and a batch are."""

import numpy as np
import pytest
import torch

from fedml_gradcam_ae.networks.batches import pair
from fedml_gradcam_ae.networks.labels import class_indices

PLAIN = [2, 0, 1, 2]
ROWS = [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor(PLAIN),
        torch.tensor(PLAIN, dtype=torch.uint8),
        torch.tensor(PLAIN, dtype=torch.int32),
        torch.tensor(PLAIN, dtype=torch.float64),
        torch.tensor(PLAIN, dtype=torch.float16)[:, None],
        torch.tensor(PLAIN)[:, None],
        np.array(PLAIN),
        np.array(ROWS, dtype=np.float32),
        PLAIN,
        torch.tensor(ROWS),
        torch.tensor(ROWS).bool(),
        0.9 * torch.tensor(ROWS) + 0.1 / 3,  # smoothed
    ],
)
def test_every_way_to_write_a_class(labels) -> None:
    found = class_indices(labels)
    assert found.tolist() == PLAIN
    assert found.dtype == torch.int64


def test_two_classes_as_truth_values() -> None:
    assert class_indices(torch.tensor([[True], [False]])).tolist() == [1, 0]


@pytest.mark.parametrize(
    "labels",
    [[-1, -100, 2], [[-1], [-2], [2]], [float("nan"), -1.0, 2.0], [[0, 0, 0], [float("nan")] * 3, [0, 0, 1.0]]],
)
def test_what_is_no_label(labels) -> None:
    assert class_indices(torch.tensor(labels)).tolist() == [-1, -1, 2]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0.0, 0.37]), r"whole numbers, the classes from 0, found 0\.37"),
        (torch.tensor([[1, 1, 0], [0, 0, 1]]), r"one-hot or probabilities, found rows whose sum is above 1"),
        (torch.zeros(2, 8, 8), r"\(images, classes\), found \(2, 8, 8\)"),
        (torch.tensor(3), r"found \(\)"),
        (["cat", "dog"], r"numbers of classes, found list"),
        (None, r"numbers of classes, found NoneType"),
    ],
)
def test_what_stands_for_no_class_is_refused(labels, message) -> None:
    with pytest.raises(ValueError, match=message):
        class_indices(labels)


@pytest.mark.parametrize(
    "batch",
    [
        ("images", "labels"),
        ["images", "labels"],
        ("images", "labels", "positions"),
        {"image": "images", "label": "labels"},
        {"pixel_values": "images", "labels": "labels", "path": 1},
        {"x": "images", "y": "labels"},
    ],
)
def test_the_images_and_the_labels_of_a_batch(batch) -> None:
    assert pair(batch) == ("images", "labels")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3), r"a pair \(images, labels\), found Tensor\."),
        ((torch.zeros(3),), r"found tuple of 1\."),
        ({"image": 1, "caption": 2}, r"labels \(labels, label, .*found a dict with 'image', 'caption'"),
        ({}, "with nothing"),
    ],
)
def test_other_batches_are_refused(batch, message) -> None:
    with pytest.raises(ValueError, match=message):
        pair(batch)
