"""What a network's output is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torchvision import models

from fedml_gradcam_ae.networks.outputs import Bare, Classifier, answer_with_logits, count_classes, logits_of
from odd import ModelOutput, Named, Output

LOGITS = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
OTHER = torch.zeros(2, 3)
LOSS = torch.tensor(0.5)
FEATURES = torch.zeros(2, 4, 8, 8)


@pytest.mark.parametrize(
    ("output", "key"),
    [
        (LOGITS, None),
        (LOGITS, "logits"),  # torchvision's networks in eval mode, while the setting is for training
        ((LOGITS, OTHER), None),
        ((OTHER, LOGITS), 1),
        ((OTHER, LOGITS), -1),
        ([LOSS, FEATURES, LOGITS], None),
        ((torch.tensor([[1, 2, 3], [1, 2, 3]]), LOGITS), None),  # whole numbers are no logits
        ((torch.zeros(5, 3), LOGITS), None),  # of five images
        ((torch.zeros(2, 1), LOGITS), None),  # a column only where there is nothing better
        ({"features": OTHER, "logits": LOGITS}, None),
        ({"features": OTHER, "out": LOGITS}, None),
        ({"loss": LOSS, "scores": LOGITS}, None),
        ({"a": OTHER, "b": LOGITS}, "b"),
        ({"a": OTHER, "b": LOGITS}, 1),
        ({0: OTHER, 7: LOGITS}, 7),
        (Output(LOSS, LOGITS), None),
        (Named(OTHER, LOGITS), None),
        (Named(OTHER, LOGITS), "logits"),
        (Named(OTHER, LOGITS), 1),
        (Named(LOGITS, OTHER), "aux"),
        (ModelOutput(features=OTHER, logits=LOGITS), None),
        (SimpleNamespace(hidden=FEATURES, logits=LOGITS), None),
    ],
)
def test_logits_are_found(output, key) -> None:
    assert logits_of(output, key, 2) is LOGITS


@pytest.mark.parametrize("column", [torch.tensor([3.0, -1.0]), torch.tensor([[3.0], [-1.0]])])
@pytest.mark.parametrize("wrap", [lambda z: z, lambda z: (z,), lambda z: {"logits": z, "features": LOGITS}])
def test_one_column_is_two_classes_with_the_probabilities_of_a_sigmoid(column, wrap) -> None:
    found = logits_of(wrap(column), None, 2)
    assert torch.allclose(found.softmax(1)[:, 1], column.flatten().sigmoid())


def test_a_network_that_squeezes_a_single_image() -> None:
    assert logits_of(torch.tensor([1.0, 2.0, 3.0]), None, 1).tolist() == [[1, 2, 3]]
    assert logits_of(torch.tensor(2.0), None, 1).tolist() == [[-1, 1]]


@pytest.mark.parametrize(
    ("output", "key", "message"),
    [
        (None, None, r"returns NoneType, with no tensor"),
        ("text", None, r"returns str, with no tensor"),
        (FEATURES, None, r"found a tensor of shape \(2, 4, 8, 8\) \(torch.float32\) for 2 images"),
        (LOGITS.long(), None, r"floating point, found a tensor of shape \(2, 3\) \(torch.int64\)"),
        (torch.zeros(3, 3), None, r"\(3, 3\) .*for 2 images"),
        (torch.zeros(2, 0), None, r"\(2, 0\)"),
        ((FEATURES, "a"), None, r"returns tuple \(0: a tensor of shape \(2, 4, 8, 8\) .*, 1: str\).*Set `logits`"),
        ((LOGITS, FEATURES), 1, r"found a tensor of shape \(2, 4, 8, 8\) \(torch.float32\) at logits: 1"),
        ((LOGITS, OTHER), 2, r"which has no 2\. It has: 0, 1\."),
        ((LOGITS, OTHER), "logits", r"which has no 'logits'\. It has: 0, 1\."),
        ({"a": LOGITS}, "logit", r"which has no 'logit'\. It has: 'a'\."),
        (Output(None, LOGITS), "loss", r"found NoneType at logits: 'loss'"),
    ],
)
def test_what_was_found_instead_is_said(output, key, message) -> None:
    with pytest.raises(ValueError, match=message):
        logits_of(output, key, 2)


class Colliding(nn.Module):
    """Its layers are called as a wrapper might call its own attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.key, self.classes = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.module, self.network = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.classes(self.network(self.module(self.key(self.inner(x)))))


@pytest.mark.parametrize(
    "build",
    [
        Colliding,
        lambda: nn.DataParallel(Colliding()),
        lambda: nn.DataParallel(nn.DataParallel(Colliding())),
        lambda: torch.compile(Colliding(), backend="eager"),
        lambda: nn.DataParallel(torch.compile(Colliding(), backend="eager")),
        lambda: nn.Linear(4, 3),
        lambda: Classifier(Colliding(), "z"),
    ],
)
def test_names_stay_and_given_tensors_are_used(build) -> None:
    network, images = build(), torch.rand(5, 4)
    bare = Bare(network)
    names = [name for name, _ in network.named_modules()]
    assert [name for name, _ in bare.named_modules()] == names
    assert list(bare.state_dict()) == list(network.state_dict())
    assert all(bare.get_submodule(name) is network.get_submodule(name) for name in names[1:])
    given = {name: torch.rand_like(tensor) for name, tensor in network.state_dict().items()}
    answer = functional_call(bare, given, (images,))
    assert not torch.allclose(answer, network(images))
    network.load_state_dict(given)
    assert torch.allclose(answer, network(images))
    assert torch.allclose(bare(images), network(images))


@pytest.mark.parametrize("build", [lambda: models.googlenet(num_classes=7, init_weights=False)])
def test_the_mode_reaches_the_network_itself(build) -> None:
    network = Classifier(build())
    images = torch.rand(2, 3, 32, 32)
    for mode in (True, False):
        network.train(mode)
        assert network(images).shape == (2, 7)
    network = Classifier(build().eval())
    assert not network.training
    assert count_classes(network, images) == 7


def test_fedmls_trainers_get_tensors_and_keep_those_that_they_can_use() -> None:
    network = nn.Identity()
    words = torch.zeros(2, 5, 9)
    handle = answer_with_logits(network, None)
    assert network(words) is words
    assert network(LOGITS) is LOGITS
    assert network(torch.zeros(2, 1)).shape == (2, 2)
    handle.remove()
    assert network(torch.zeros(2, 1)).shape == (2, 1)
