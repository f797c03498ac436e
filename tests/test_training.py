import copy
from types import SimpleNamespace

import pytest
import torch
from fedml.ml.trainer.my_model_trainer_classification import ModelTrainerCLS
from torch import nn

from fedml_gradcam_ae.networks.images import seeded_generator
from fedml_gradcam_ae.networks.training import train_locally
from tiny import digits, state_of, tiny_cnn

images, labels = (tensor[:40] for tensor in digits())


def train(network, start=None, **changes):
    settings = {
        "epochs": 2,
        "learning_rate": 0.05,
        "optimizer": "sgd",
        "weight_decay": 0.0,
        "batch_size": 40,
        "generator": seeded_generator(0),
        **changes,
    }
    return train_locally(network, start or state_of(network), images, labels, **settings)


@pytest.mark.parametrize(
    ("optimizer", "weight_decay"), [("sgd", 0.0), ("sgd", 0.3), ("adam", 0.0), ("adam", 0.3), ("SGD", 0.1)]
)
def test_as_fedmls_own_trainer_down_to_its_reading_of_the_optimizer(optimizer, weight_decay) -> None:
    """On one batch of all images, so that no order matters.

    Without the bias in front of BatchNorm: its gradient is rounding, of which Adam makes whole steps.
    """
    model = tiny_cnn()
    model[0].bias = None
    network = copy.deepcopy(model)
    args = SimpleNamespace(client_optimizer=optimizer, learning_rate=0.05, weight_decay=weight_decay, epochs=3)
    ours = train(network, optimizer=optimizer, weight_decay=weight_decay, epochs=3)
    ModelTrainerCLS(model, args).train([(images, labels)], torch.device("cpu"), args)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-6)
    assert ours["1.num_batches_tracked"] == 3


class Recorder(nn.Module):
    """Notes every batch that it sees."""

    def __init__(self, seen: list[torch.Tensor]) -> None:
        super().__init__()
        self.seen, self.layer = seen, nn.Linear(64, 10)

    def __deepcopy__(self, memo) -> nn.Module:
        copied = Recorder(self.seen)
        copied.load_state_dict(self.state_dict())
        return copied

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return self.layer(x.flatten(1))


@pytest.mark.parametrize(("batch_size", "sizes"), [(64, [40]), (39, [20, 20]), (13, [10] * 4), (1, [1] * 40)])
def test_each_epoch_sees_every_image_once_in_batches_of_nearly_one_size(batch_size, sizes) -> None:
    seen: list[torch.Tensor] = []
    train(Recorder(seen), batch_size=batch_size, epochs=2)
    assert [len(batch) for batch in seen] == sizes * 2
    order = [torch.cat(seen[: len(sizes)]), torch.cat(seen[len(sizes) :])]
    for epoch in order:
        assert {image.numpy().tobytes() for image in epoch} == {image.numpy().tobytes() for image in images}
    assert not torch.equal(*order)


def test_neither_the_network_nor_the_start_nor_the_random_state_changes() -> None:
    network = nn.Sequential(tiny_cnn(), nn.Dropout(0.5)).eval()
    start = {name: tensor + 0.1 if tensor.is_floating_point() else tensor for name, tensor in state_of(network).items()}
    before, kept = state_of(network), {name: tensor.clone() for name, tensor in start.items()}
    state = torch.get_rng_state()
    first = train(network, start)
    assert torch.equal(state, torch.get_rng_state())
    assert not network.training
    for name in before:
        assert torch.equal(network.state_dict()[name], before[name])
        assert torch.equal(start[name], kept[name])
    torch.manual_seed(7)
    second = train(network, start)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = train(network, start, generator=seeded_generator(1))
    assert not torch.equal(first["0.5.bias"], other["0.5.bias"])


def test_frozen_parameters_stay() -> None:
    network = tiny_cnn()
    network[0].requires_grad_(False)
    trained = train(network)
    assert torch.equal(trained["0.weight"], network[0].weight)
    assert not torch.equal(trained["5.weight"], network[5].weight)


def test_it_trains_also_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert not torch.equal(train(tiny_cnn())["5.bias"], tiny_cnn()[5].bias)
