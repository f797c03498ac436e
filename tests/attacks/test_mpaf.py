import numpy as np
import pytest
import torch
from torch import nn

from fedml_gradcam_ae.attacks.mpaf import MPAF, fresh_parameters
from flat import update
from tiny import state_of, tiny_cnn


def poison(round, attackers=(0, 3), **params):
    return MPAF(MPAF.Settings(**params)).poison(round, list(attackers))


def moved(make_round, amount, **changes):
    """A later round, with another global model."""
    network = tiny_cnn().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += amount
    return make_round(network=network, **changes)


def bases(round, **params):
    """w_base, solved for from each attacker's upload."""
    start = np.concatenate([parameter.detach().numpy().ravel() for parameter in round.network.parameters()])
    return [start + update(round, upload) / 1e3 for upload in poison(round, scale=1e3, **params)]


def test_the_uploads_pull_toward_one_and_the_same_model_in_all_rounds(make_round) -> None:
    rounds = [moved(make_round, amount, number=number) for number, amount in enumerate([0.0, 0.5, -2.0], start=1)]
    found = [base for round in rounds for base in bases(round)]
    assert len(found) == 6
    assert all(base == pytest.approx(found[0], abs=1e-9) for base in found)
    assert not np.allclose(bases(rounds[0], seed=1)[0], found[0], atol=0.1)


def test_at_a_scale_of_one_the_upload_is_a_fresh_network(make_round) -> None:
    round = moved(make_round, 3.0)
    (upload,) = poison(round, [2], scale=1.0)
    bounds = {"0.weight": 1 / 3, "0.bias": 1 / 3, "5.weight": 1 / 4, "5.bias": 1 / 4}  # 1 / sqrt(inputs)
    for name, bound in bounds.items():
        assert bound / 2 < upload[name].abs().max() <= bound + 1e-9
    assert upload["1.weight"].tolist() == pytest.approx([1] * 4)
    assert upload["1.bias"].tolist() == pytest.approx([0] * 4, abs=1e-12)


def test_the_length_is_lambda_times_the_way_to_it(make_round) -> None:
    round = moved(make_round, 1.0)
    one, many = (update(round, poison(round, scale=scale)[0]) for scale in (1.0, 1e6))
    assert many == pytest.approx(1e6 * one, rel=1e-6)


def test_statistics_stay_each_attackers_own(make_round) -> None:
    uploads = [{**u, "1.running_mean": torch.full((4,), float(i))} for i, u in enumerate(make_round().uploads)]
    first, second = poison(make_round(uploads=uploads))
    assert first["1.running_mean"].tolist() == [0.0] * 4
    assert second["1.running_mean"].tolist() == [3.0] * 4


class Token(nn.Module):
    """Parameters that no reset_parameters knows of."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.full((1, 3, 100), 7.0))
        self.scale = nn.Parameter(torch.full((400,), 7.0))
        self.temperature = nn.Parameter(torch.tensor(7.0))
        self.inner = nn.Linear(4, 4)


def test_parameters_that_nobody_resets_are_drawn_small() -> None:
    network = Token()
    before = state_of(network)
    fresh = fresh_parameters(network, seed=0)
    for name, bound in {"token": 300**-0.5, "scale": 400**-0.5}.items():
        assert 0.9 * bound < fresh[name].abs().max() <= bound
        assert abs(fresh[name].mean()) < bound / 5
    assert -1 <= fresh["temperature"] <= 1
    assert fresh["inner.weight"].abs().max() <= 0.5
    assert all(torch.equal(before[name], tensor) for name, tensor in state_of(network).items())
