"""FedOpt's server over MPI, and FedNova's clients there, without MPI."""

import copy

import pytest
import torch
from fedml.ml.aggregator.default_aggregator import DefaultServerAggregator

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks.simulation.mpi_fednova import steps_of
from fedml_gradcam_ae.hooks.simulation.mpi_server import HookedFedOptAggregator
from simulation import same
from tiny import fedml_args, fedml_dataset, state_of, tiny_cnn

CLIENTS = 3


@pytest.fixture
def server(plugin):
    def make(**changes):
        given = {"server_optimizer": "sgd", "server_lr": 1.0, "server_momentum": 0.9, **changes}
        args = fedml_args(
            federated_optimizer="FedOpt", client_num_per_round=CLIENTS, client_num_in_total=CLIENTS, **given
        )
        _, _, train, test, counts, local, tests, _ = fedml_dataset(CLIENTS)
        device, own = torch.device("cpu"), DefaultServerAggregator(tiny_cnn(), args)
        made = HookedFedOptAggregator(train, test, 60, local, tests, counts, CLIENTS, device, args, own)
        made.client_sampling(0, CLIENTS, CLIENTS)
        return made

    return make


def round_of(server, change):
    """One round in which every client adds `change` to the weights; the state dict after it."""
    start = server.get_global_model_params()
    for client in range(CLIENTS):
        upload = {name: tensor + change if tensor.is_floating_point() else tensor for name, tensor in start.items()}
        server.add_local_trained_result(client, upload, 20)
    return copy.deepcopy(server.aggregate())


def test_momentum_does_not_move_a_model_that_is_to_stay(server) -> None:
    moving = server()
    first = round_of(moving, 0.5)
    assert float(first["0.weight"].sub(state_of(tiny_cnn())["0.weight"]).mean()) == pytest.approx(0.5, abs=1e-6)
    stays = round_of(moving, torch.nan)  # no upload is usable
    assert same(first, stays)
    third = round_of(moving, 0.5)
    assert float(third["0.weight"].sub(first["0.weight"]).mean()) == pytest.approx(0.5 + 0.9 * 0.5, abs=1e-6)


def test_the_servers_optimizer_may_be_one_without_momentum(server) -> None:
    found = round_of(server(server_optimizer="adam", server_lr=0.01, server_momentum=None), 0.5)
    change = found["0.weight"] - state_of(tiny_cnn())["0.weight"]
    assert torch.allclose(change, torch.full_like(change, 0.01), atol=1e-6)  # Adam's first step has the length lr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"server_optimizer": "FedOpt"}, r"Unknown train_args.server_optimizer 'FedOpt'\. .*Valid: .*adam, .*sgd"),
        ({"server_lr": None}, "train_args.server_lr must be a number for sgd on the server, found None"),
    ],
)
def test_a_mistake_in_the_servers_optimizer_is_answered(server, changes, message) -> None:
    with pytest.raises(SettingsError, match=message):
        server(**changes)


def test_steps_count_as_in_the_papers_formulas() -> None:
    def args(**changes):
        return fedml_args(**{"gmf": 0.0, "mu": 0.0, "momentum": 0.0, **changes})

    assert steps_of(args(), 7) == 7
    rho = 0.5
    assert steps_of(args(momentum=rho), 7) == pytest.approx((7 - rho * (1 - rho**7) / (1 - rho)) / (1 - rho))
    assert steps_of(args(mu=0.1), 7) == 7
