import pytest
import torch
from torch import nn

from fedml_gradcam_ae.defenses.gradcam_ae.autoencoder import Autoencoder, fit_autoencoder, held_out_reconstructions


def fit(maps, seed=0, **changes):
    options = {"hidden": 8, "epochs": 50, "learning_rate": 1e-3, "weight_decay": 1e-5, "output": "sigmoid"}
    return fit_autoencoder(maps, **{**options, **changes}, generator=torch.Generator().manual_seed(seed))


def test_one_hidden_layer_of_the_asked_width() -> None:
    model = Autoencoder(16, 5, "sigmoid", torch.Generator())
    assert [tuple(p.shape) for p in model.parameters()] == [(5, 16), (5,), (16, 5), (16,)]
    assert model(torch.randn(3, 16)).min() >= 0
    assert Autoencoder(16, 5, "identity", torch.Generator())(torch.randn(99, 16)).min() < 0


def test_it_is_adam_on_the_mean_squared_error_with_pytorchs_start() -> None:
    """The same training written out with plain modules and the plain Adam."""
    maps = torch.rand(6, 16, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(0)
    plain = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 16), nn.Sigmoid())
    for layer in (plain[0], plain[2]):
        bound = 1 / layer.in_features**0.5
        for parameter in layer.parameters():
            parameter.data.uniform_(-bound, bound, generator=generator)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3, weight_decay=1e-5)
    for _ in range(50):
        optimizer.zero_grad()
        ((plain(maps) - maps) ** 2).mean().backward()
        optimizer.step()
    assert torch.allclose(fit(maps)(maps), plain(maps), atol=1e-5)


def test_training_reduces_the_error_a_lot() -> None:
    maps = torch.rand(6, 16, generator=torch.Generator().manual_seed(3))
    early, late = (((model(maps) - maps) ** 2).mean() for model in (fit(maps, epochs=1), fit(maps, epochs=800)))
    assert late < early / 5


def test_deterministic_for_a_seed_and_without_the_global_random_state() -> None:
    maps = torch.rand(4, 16)
    state = torch.get_rng_state()
    first = fit(maps)(maps)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(first, fit(maps)(maps))
    assert not torch.equal(first, fit(maps, seed=1)(maps))


def test_it_trains_where_gradients_are_off() -> None:
    maps = torch.rand(4, 16)
    expected = fit(maps)(maps)
    with torch.no_grad():
        assert torch.equal(fit(maps)(maps), expected)


def test_held_out_clients_are_reconstructed_by_an_autoencoder_that_was_trained_without_them() -> None:
    """Against one autoencoder after another, each trained by a plain loop on the maps of those not held out."""
    maps = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(1))
    held = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 1, 1, 1]], dtype=torch.bool)
    settings = {"hidden": 4, "epochs": 25, "learning_rate": 0.01, "weight_decay": 1e-3}
    found = held_out_reconstructions(maps, held, generator=torch.Generator().manual_seed(2), **settings)
    assert found.shape == maps.shape
    for fold, clients in ((0, [0, 1, 4]), (1, [2, 3])):
        model = Autoencoder(6, 4, "identity", torch.Generator().manual_seed(2))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3)
        train = maps[~held[fold]].flatten(0, 1)
        for _ in range(25):
            optimizer.zero_grad()
            torch.nn.HuberLoss()(model(train), train).backward()
            optimizer.step()
        assert torch.allclose(found[clients], model(maps[clients]).detach(), atol=1e-5)


def test_a_fold_without_a_client_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="found a fold that holds out all clients"):
        held_out_reconstructions(
            torch.zeros(2, 1, 3),
            torch.ones(1, 2, dtype=torch.bool),
            hidden=2,
            epochs=1,
            learning_rate=0.1,
            weight_decay=0,
            generator=torch.Generator(),
        )
