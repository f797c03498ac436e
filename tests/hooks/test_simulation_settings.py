"""`simulation_args`: uploads that get lost, and the momentum of clients and server."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedml_gradcam_ae import Defense, Verdict, register_defense
from fedml_gradcam_ae.attacks.label_flip import LabelFlip
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks.simulation.drop_out import arriving
from fedml_gradcam_ae.hooks.simulation.momentum import ServerMomentum, WorkerMomentum
from fedml_gradcam_ae.hooks.simulation.simulated_server import SimulatedServer
from fedml_gradcam_ae.recording.events import RoundReport
from simulation import distance, same, simulate
from tiny import state_of, tiny_cnn

NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "5.weight", "5.bias"]  # of the tiny network


@pytest.fixture
def rounds(types):
    """A defense that keeps what it was given, and every client."""
    seen = []

    @register_defense("witness")
    class Witness(Defense):
        def judge(self, round):
            seen.append(round)
            return Verdict(weights=[1 / len(round.uploads)] * len(round.uploads))

    return seen


WITNESS = {"enable_defense": True, "defense_type": "witness"}


def test_momentum_is_the_moving_average_that_numpy_computes() -> None:
    generator = np.random.default_rng(0)
    worker, server = WorkerMomentum(0.8, ["w"]), ServerMomentum(0.6, ["w"])
    m, v = {}, np.zeros(5)
    for number in range(6):
        center = {"w": torch.from_numpy(generator.normal(size=5)), "mean": torch.zeros(1)}
        for client in ("a", "b") if number % 2 else ("a",):
            u = generator.normal(size=5)
            m[client] = 0.2 * u + 0.8 * m[client] if client in m else u
            trained = {"w": center["w"] + torch.from_numpy(u), "mean": torch.full((1,), float(number))}
            found = worker.upload(client, trained, center)
            assert np.allclose(found["w"], center["w"] + m[client])
            assert float(found["mean"]) == number  # has no momentum
        u = generator.normal(size=5)
        v = 0.6 * v + u
        found = server.model({"w": center["w"] + torch.from_numpy(u), "mean": torch.ones(1)}, center)
        assert np.allclose(found["w"], center["w"] + v)
        assert float(found["mean"]) == 1


def test_an_upload_that_is_not_finite_leaves_the_momentum_as_it_was() -> None:
    momentum, center = WorkerMomentum(0.5, ["w"]), {"w": torch.zeros(1)}
    momentum.upload(1, {"w": torch.tensor([1.0])}, center)
    broken = momentum.upload(1, {"w": torch.tensor([torch.nan])}, center)
    assert broken["w"].isnan()
    assert float(momentum.upload(1, {"w": torch.tensor([2.0])}, center)["w"]) == 1.5


def test_each_upload_is_lost_with_the_probability_and_one_arrives_always() -> None:
    found = [len(arriving(20, 0.3, seed=4, number=number)) for number in range(1, 2001)]
    assert np.mean(found) == pytest.approx(14, abs=4 * np.sqrt(20 * 0.3 * 0.7 / 2000))
    assert np.var(found) == pytest.approx(20 * 0.3 * 0.7, rel=0.15)
    assert arriving(20, 0.0, seed=4, number=1) == list(range(20))
    assert min(len(arriving(2, 0.99, seed=4, number=number)) for number in range(100)) == 1
    assert arriving(9, 0.5, seed=4, number=3) == arriving(9, 0.5, seed=4, number=3) != arriving(9, 0.5, 5, 3)


def test_a_clients_upload_has_its_momentum(plugin, rounds) -> None:
    simulate(comm_round=2, **WITNESS)
    plain = list(rounds)
    rounds.clear()
    simulate(comm_round=2, worker_momentum=0.9, **WITNESS)
    assert all(same(ours, its) for ours, its in zip(rounds[0].uploads, plain[0].uploads, strict=True))
    start = [round.global_model for round in plain]
    for client, upload in enumerate(rounds[1].uploads):
        for name in NAMES:
            first, second = (plain[i].uploads[client][name] - start[i][name] for i in (0, 1))
            assert torch.allclose(upload[name], start[1][name] + 0.1 * second + 0.9 * first, atol=1e-6)
        assert torch.equal(upload["1.running_mean"], plain[1].uploads[client]["1.running_mean"])


@pytest.mark.parametrize("acting", [{}, WITNESS], ids=["plain", "defense"])
def test_the_server_has_momentum_with_a_defense_and_without(plugin, rounds, acting) -> None:
    first, with_momentum = (simulate(comm_round=1, server_momentum=factor, **acting) for factor in (0.0, 0.9))
    assert distance(first, with_momentum) < 1e-6  # the first round has no past
    start = state_of(tiny_cnn())
    plain, second = (simulate(comm_round=2, server_momentum=factor, **acting) for factor in (0.0, 0.9))
    for name in NAMES:
        assert torch.allclose(second[name], plain[name] + 0.9 * (first[name] - start[name]), atol=1e-5)
    assert torch.allclose(second["1.running_mean"], plain["1.running_mean"], atol=1e-6)


def test_lost_uploads_reach_no_defense(plugin, rounds) -> None:
    simulate(comm_round=4, client_num_in_total=8, client_num_per_round=8, drop_out=0.5, **WITNESS)
    present = [set(round.client_ids) for round in rounds]
    assert all(present)
    assert len({frozenset(ids) for ids in present}) > 1
    assert present == [set(arriving(8, 0.5, seed=0, number=number)) for number in range(1, 5)]


@pytest.mark.parametrize("redraw", [{"redraw": "every_round"}, {"at_once": 2}])
def test_the_attackers_are_those_whose_data_were_poisoned_whatever_was_lost(plugin, heard, monkeypatch, redraw) -> None:
    poisoned: dict[int, set[int]] = {}

    def poison_data(self, network, data, attacker=0, attackers=1):
        poisoned.setdefault(len(reports(heard)) + 1, set()).add(len(data.dataset) - 20)  # client i has 20 + i images
        return data

    monkeypatch.setattr(LabelFlip, "poison_data", poison_data)
    attack = {"enable_attack": True, "attack_type": "label_flip", "attack_params": {"attackers": 4, **redraw}}
    simulate(comm_round=6, client_num_in_total=10, client_num_per_round=6, drop_out=0.4, **attack)
    for report in reports(heard):
        arrived = {client.client for client in report.clients}
        attackers = {client.client for client in report.clients if client.malicious}
        assert attackers == poisoned.get(report.number, set()) & arrived


def reports(heard):
    return [event for event in heard if isinstance(event, RoundReport)]


@pytest.mark.parametrize("momentum", ["worker_momentum", "server_momentum"])
def test_a_tied_weight_keeps_one_value(momentum) -> None:
    network = torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1, bias=False), "b": torch.nn.Linear(1, 1, bias=False)})
    network["b"].weight = network["a"].weight
    args = SimpleNamespace(random_seed=0, client_num_in_total=2, **{momentum: 0.5})
    server = SimulatedServer(args, network, [])
    kept = []

    class Aggregator:
        def get_model_params(self):
            return {name: torch.zeros(1, 1) for name in ("a.weight", "b.weight")}

        def set_model_params(self, model):
            kept.append(model)

    for step in (1.0, 2.0):
        uploads = [(1.0, {name: torch.full((1, 1), step) for name in ("a.weight", "b.weight")})] * 2
        mean = server.aggregate(
            Aggregator(), lambda given: dict(given[0][1]), uploads, number=1, client_ids=[0, 1], local_data={}
        )
        assert torch.equal(mean["a.weight"], mean["b.weight"])
    assert float(kept[-1]["b.weight"]) != 2.0


def test_server_momentum_and_a_rule_that_predicts_by_its_own_model_do_not_go_together(plugin) -> None:
    with pytest.raises(SettingsError, match="server_momentum: crfl predicts by the model that it made"):
        simulate(enable_defense=True, defense_type="crfl", server_momentum=0.5)


@pytest.mark.parametrize("key", ["worker_momentum", "server_momentum"])
def test_momentum_and_models_of_groups_do_not_go_together(plugin, key) -> None:
    options = {"enable_defense": True, "defense_type": "flcert", "defense_params": {"groups": 3}}
    with pytest.raises(SettingsError, match=f"simulation_args.{key}: flcert has clients start from different models"):
        simulate(**options, **{key: 0.9})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_out": 1.0}, "simulation_args.drop_out"),
        ({"drop_out": -0.1}, "simulation_args.drop_out"),
        ({"worker_momentum": 1.0}, "simulation_args.worker_momentum"),
        ({"server_momentum": "0.9"}, "simulation_args.server_momentum"),
    ],
)
def test_values_out_of_range_are_refused(plugin, changes, message) -> None:
    with pytest.raises(SettingsError, match=message):
        simulate(**changes)


def test_the_servers_momentum_stays_finite() -> None:
    momentum, largest = ServerMomentum(0.9, ["w"]), torch.finfo(torch.float32).max
    center = {"w": torch.tensor([-largest, 1.0])}
    for _ in range(3):
        center = momentum.model({"w": torch.tensor([largest, 2.0])}, center)
        assert center["w"].isfinite().all()
    assert center["w"][0] == largest


def test_a_model_that_is_to_stay_does_not_coast_on(plugin, rounds, monkeypatch) -> None:
    moving = simulate(comm_round=1, server_momentum=0.9, **WITNESS)

    def judge(self, round):
        kept = 0.0 if round.number > 1 else 1 / len(round.uploads)
        return Verdict(weights=[kept] * len(round.uploads))

    monkeypatch.setattr(registry.defenses()["witness"], "judge", judge)
    staying = simulate(comm_round=3, server_momentum=0.9, **WITNESS)
    assert distance(moving, staying) == 0
