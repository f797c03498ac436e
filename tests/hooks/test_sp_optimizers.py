"""`backend: sp`: attackers and defenders act with every optimizer that exchanges models, and nothing else changes."""

import copy
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import fedml
import pytest
import torch
from fedml import constants
from fedml.simulation.simulator import SimulatorSingleProcess
from fedml.simulation.sp.feddyn import feddyn_trainer
from fedml.simulation.sp.fednova import fednova_trainer
from fedml.simulation.sp.fednova.client import Client as FedNovaClient
from fedml.simulation.sp.fedopt import fedopt_api
from fedml.simulation.sp.fedprox import fedprox_trainer
from fedml.simulation.sp.hierarchical_fl import trainer as hierarchical
from fedml.simulation.sp.mime import mime_trainer
from fedml.simulation.sp.mime.client import Client as MimeClient
from fedml.simulation.sp.scaffold import scaffold_trainer
from fedml.simulation.sp.scaffold.client import Client as ScaffoldClient
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fedml_gradcam_ae
from fedml_gradcam_ae import Attack, Defense, Verdict, register_defense
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks.simulation.optimizers import TABLE
from fedml_gradcam_ae.recording.events import Measured, RoundReport
from simulation import distance, same, simulate
from tiny import fedml_args, fedml_dataset, state_of, tiny_cnn

COUNT = "1.num_batches_tracked"
NOISE = {"enable_attack": True, "attack_type": "uniform_noise", "attack_params": {"attackers": [3]}}
MULTI_KRUM = {"enable_defense": True, "defense_type": "multi_krum", "defense_params": {"malicious": 1, "kept": 3}}


def without_batchnorm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)
    )


# FedML's own loops, mended where docs/fedml.md says so: the references that the plug-in must equal.


class Copying:
    """The clients of a round start from the same weights, not each where the last one stopped."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        live = self.model_trainer.get_model_params
        self.model_trainer.get_model_params = lambda: copy.deepcopy(live())


class FedOpt(Copying, fedopt_api.FedOptAPI):
    pass


class FedProx(Copying, fedprox_trainer.FedProxTrainer):
    pass


class Mime(Copying, mime_trainer.MimeTrainer):
    pass


class FedDyn(Copying, feddyn_trainer.FedDynTrainer):
    """The server's state is relative to the model that the round began with, not to the last client's."""

    def _client_sampling(self, *given: Any) -> Any:
        self.start = self.model_trainer.get_model_params()
        return super()._client_sampling(*given)

    def _aggregate(self, w_locals: Any) -> Any:
        self.model_trainer.set_model_params(self.start)
        return super()._aggregate(w_locals)


class Hierarchical(hierarchical.HierarchicalTrainer):
    def train(self) -> None:
        first = copy.deepcopy(self.model.state_dict())

        def group_train(group: Any, round_idx: int, w: Any, sampled: Any) -> Any:
            return type(group).train(group, round_idx, copy.deepcopy(first) if round_idx == 0 else w, sampled)

        for group in self.group_dict.values():
            group.train = lambda *given, group=group: group_train(group, *given)
        super().train()


class Optimizer(NamedTuple):
    keys: dict[str, Any]
    where: Any = None
    name: str = ""
    mended: type | None = None
    network: Callable[[], nn.Module] = tiny_cnn


NOVA = {"gmf": 0, "mu": 0, "momentum": 0.5, "dampening": 0.0, "wd": 0.0, "nesterov": False}
STATEFUL = {"initialize_all_clients": True}
ADAM = {"server_optimizer": "adam", "server_lr": 0.01}
GROUPS = {"group_method": "random", "group_num": 2, "group_comm_round": 2, "lr": 0.1, "wd": 0.0}
OPTIMIZERS = {
    "FedOpt": Optimizer({"server_optimizer": "sgd", "server_lr": 0.9}, fedopt_api, "FedOptAPI", FedOpt),
    "FedProx": Optimizer({"fedprox_mu": 0.1}, fedprox_trainer, "FedProxTrainer", FedProx),
    "FedNova": Optimizer(NOVA, fednova_trainer, "FedNovaTrainer", fednova_trainer.FedNovaTrainer, without_batchnorm),
    "FedDyn": Optimizer({"feddyn_alpha": 0.1, **STATEFUL}, feddyn_trainer, "FedDynTrainer", FedDyn, without_batchnorm),
    "SCAFFOLD": Optimizer({"server_lr": 1.0, **STATEFUL}, network=without_batchnorm),
    "Mime": Optimizer(
        {"server_optimizer": "sgd", "server_lr": 0.1, "server_momentum": 0.9, "momentum": 0.0, "mimelite": False},
        mime_trainer,
        "MimeTrainer",
        Mime,
        without_batchnorm,
    ),
    "HierarchicalFL": Optimizer(
        {"client_num_in_total": 16, "client_num_per_round": 16, "comm_round": 1, **GROUPS},
        hierarchical,
        "HierarchicalTrainer",
        Hierarchical,
    ),
}


def run(optimizer: str, **changes: Any) -> dict[str, torch.Tensor]:
    found = OPTIMIZERS[optimizer]
    return simulate(found.network(), **{"federated_optimizer": optimizer, **found.keys, **changes})


def stock(monkeypatch, optimizer: str, mended: bool = True, **changes: Any) -> dict[str, torch.Tensor]:
    with monkeypatch.context() as patch:
        patch.setattr(fedml.core.mlops, "fetch_config", lambda *a, **k: False)
        patch.setattr(fedml, "get_env_version", lambda: "release")
        init = fedml.init
        patch.setattr(fedml, "init", lambda args: init(args, check_env=False, should_init_logs=False))
        found = OPTIMIZERS[optimizer]
        if mended:
            patch.setattr(found.where, found.name, found.mended)
        return run(optimizer, ci=0, **changes)


def reports(heard) -> list[RoundReport]:
    return [event for event in heard if isinstance(event, RoundReport)]


@pytest.mark.parametrize(
    ("optimizer", "changes"),
    [
        ("FedOpt", {}),
        ("FedOpt", ADAM),
        ("FedProx", {"client_optimizer": "adam"}),
        ("FedNova", {}),
        ("FedNova", {"mu": 0.1, "momentum": 0.0, "epochs": 2}),
        ("FedDyn", {"client_optimizer": "adam"}),
        ("Mime", {}),
        ("Mime", {"mimelite": True}),
        ("HierarchicalFL", {"epochs": 2, "group_num": 3, "comm_round": 2}),
    ],
)
def test_with_neither_attack_nor_defense_a_run_is_fedmls_own_bit_for_bit(monkeypatch, optimizer, changes) -> None:
    options = {"client_num_per_round": 10 if optimizer == "HierarchicalFL" else 4, **changes}
    mended, as_shipped = (stock(monkeypatch, optimizer, mended, **options) for mended in (True, False))
    fedml_gradcam_ae.register()
    ours = run(optimizer, **options)
    fedml_gradcam_ae.unregister()
    for final in (mended, as_shipped, ours):
        final.pop(COUNT, None)  # FedML cuts off the decimals of its mean
    assert same(ours, mended)
    # The others have the mistake that is mended, so that equality says something.
    assert same(as_shipped, mended) == (optimizer == "FedNova")


def scaffold(data: dict[int, Any], rounds: int, lr: float) -> dict[str, torch.Tensor]:
    """Return what SCAFFOLD (option II) comes to in which means are weighted by samples."""
    network = without_batchnorm()
    server = [torch.zeros_like(p) for p in network.parameters()]
    own = {i: [torch.zeros_like(p) for p in network.parameters()] for i in data}
    total = sum(len(loader.dataset) for loader in data.values())
    for _ in range(rounds):
        start = [p.detach().clone() for p in network.parameters()]
        moves, changes = [], []
        for i, loader in data.items():
            local, steps = copy.deepcopy(network), 0
            for images, labels in loader:
                gradients = torch.autograd.grad(nn.functional.cross_entropy(local(images), labels), local.parameters())
                with torch.no_grad():
                    for p, g, c, c_i in zip(local.parameters(), gradients, server, own[i], strict=True):
                        p -= lr * (g + c - c_i)
                steps += 1
            share = len(loader.dataset) / total
            moved = [p.detach() - x for p, x in zip(local.parameters(), start, strict=True)]
            changed = [-c - m / (steps * lr) for c, m in zip(server, moved, strict=True)]
            own[i] = [c_i + change for c_i, change in zip(own[i], changed, strict=True)]
            moves.append([share * m for m in moved])
            changes.append([share * change for change in changed])
        with torch.no_grad():
            for p, *each in zip(network.parameters(), *moves, strict=True):
                p += sum(each)
        server = [c + sum(each) for c, *each in zip(server, *changes, strict=True)]
    return state_of(network)


def in_order(optimizer: str) -> list[Any]:
    """Batches in one order, so that tests of the model between rounds change nothing."""
    dataset = fedml_dataset(OPTIMIZERS[optimizer].keys.get("client_num_in_total", 6))
    size = 7 if optimizer in ("SCAFFOLD", "FedNova") else 16  # so that clients differ in their numbers of steps
    dataset[5] = {client: DataLoader(loader.dataset, batch_size=size) for client, loader in dataset[5].items()}
    if optimizer == "FedDyn":  # FedML's mean has equal weights there
        dataset[4] = dict.fromkeys(dataset[4], 20)
    return dataset


def test_scaffold_is_that_of_its_paper(monkeypatch) -> None:
    expected = scaffold(in_order("SCAFFOLD")[5], rounds=3, lr=0.1)
    shipped = stock(monkeypatch, "SCAFFOLD", mended=False, comm_round=3, dataset=in_order("SCAFFOLD"))
    fedml_gradcam_ae.register()
    ours = run("SCAFFOLD", comm_round=3, dataset=in_order("SCAFFOLD"))
    fedml_gradcam_ae.unregister()
    assert distance(ours, expected) < 1e-6
    assert distance(shipped, expected) > 0.01  # FedML's takes the last client's upload for the mean


@pytest.fixture
def judging(types):
    """Register a defense that keeps everybody but some, weighted by samples."""

    def register(out=(), after=None):
        @register_defense("keeping")
        class Keeping(Defense):
            def judge(self, round):
                excluded = [c in out or (after is not None and round.number > after) for c in round.client_ids]
                kept = [0 if gone else n for n, gone in zip(round.samples, excluded, strict=True)]
                return Verdict(excluded=excluded, weights=[n / sum(kept) if sum(kept) else 0 for n in kept])

        types["defenses"]["keeping"] = Keeping
        return {"enable_defense": True, "defense_type": "keeping"}

    return register


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_defense_that_keeps_everybody_changes_nothing(plugin, judging, optimizer) -> None:
    plain = run(optimizer, dataset=in_order(optimizer))
    kept = run(optimizer, dataset=in_order(optimizer), **judging(), largest_step=None)
    assert distance(plain, kept) < 1e-5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_attacker_ruins_a_run_and_is_left_out_of_a_defended_one(plugin, heard, optimizer) -> None:
    clean = run(optimizer)
    assert not reports(heard)
    tested = {name for event in heard if isinstance(event, Measured) for name in event.values}
    assert "Test/Acc" in tested
    attacked = run(optimizer, **NOISE)
    heard.clear()
    defended = run(optimizer, **NOISE, **MULTI_KRUM)
    assert distance(attacked, clean) > 3 * distance(defended, clean)
    judged = reports(heard)
    attackers = [client for report in judged for client in report.clients if client.client == 3]
    assert len(attackers) == 2  # rounds, of its group or of the run
    assert all(client.malicious and client.excluded and client.weight == 0 for client in attackers)
    assert all(sum(not client.excluded for client in report.clients) == 3 for report in judged)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_left_out_uploads_have_no_influence(plugin, judging, optimizer) -> None:
    huge = {**NOISE, "attack_params": {"attackers": [3], "high": 1e6}}
    calm, loud = (run(optimizer, dataset=in_order(optimizer), **judging(out=[3]), **attack) for attack in ({}, huge))
    assert same(calm, loud)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_without_a_kept_upload_the_model_stays(plugin, heard, judging, optimizer) -> None:
    keys = ADAM if optimizer == "FedOpt" else {}
    first = OPTIMIZERS[optimizer].keys.get("group_comm_round", 1)
    once, longer = (
        run(optimizer, dataset=in_order(optimizer), comm_round=rounds, **keys, **judging(after=first))
        for rounds in (1, 2)
    )
    assert distance(once, longer) < (1e-6 if optimizer == "HierarchicalFL" else 1e-12)
    assert any(report.global_model_stays for report in reports(heard))


class NotANumber(Attack):
    def poison(self, round, attackers):
        nan = {name: tensor + torch.nan for name, tensor in round.uploads[0].items() if tensor.is_floating_point()}
        return [{**round.uploads[position], **nan} for position in attackers]


@pytest.mark.parametrize("defense", [{}, MULTI_KRUM], ids=["undefended", "defended"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_upload_with_nan_is_left_out_and_reported(plugin, heard, types, optimizer, defense) -> None:
    types["attacks"]["nan"] = NotANumber
    final = run(optimizer, **defense, enable_attack=True, attack_type="nan", attack_params={"attackers": [3]})
    assert all(tensor.isfinite().all() for tensor in final.values())
    bad = [client for report in reports(heard) for client in report.clients if client.client == 3]
    assert len(bad) >= 2
    assert all(client.excluded and "NaN" in client.reason for client in bad)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_client_whose_training_diverges_is_left_out_of_a_plain_run(plugin, heard, monkeypatch, optimizer) -> None:
    dataset = in_order(optimizer)
    images = dataset[5][3].dataset.tensors[0]
    dataset[5][3] = DataLoader(TensorDataset(images * torch.nan, dataset[5][3].dataset.tensors[1]), batch_size=16)
    final = run(optimizer, dataset=dataset)
    assert all(tensor.isfinite().all() for tensor in final.values())
    found = [client for report in reports(heard) for client in report.clients if client.excluded]
    assert {client.client for client in found} == {3}
    assert all("NaN" in client.reason for client in found)


@pytest.mark.parametrize(
    "flip",
    [
        {"attack_type": "label_flip", "attack_params": {"attackers": 3}},
        {"attack_type": "label_flipping", "original_class_list": [1, 2], "target_class_list": [2, 1]},
    ],
    ids=["ours", "FedML's"],
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_clients_train_on_poisoned_data(plugin, optimizer, flip) -> None:
    flip = {"enable_attack": True, "ratio_of_poisoned_client": 1.0, **flip}
    clean, poisoned = (run(optimizer, dataset=in_order(optimizer), comm_round=1, **attack) for attack in ({}, flip))
    assert distance(clean, poisoned) > 1e-3


# What is uploaded beside a model: the position of it in the answer of FedML's client, and the client's class
EXTRAS = {"SCAFFOLD": (1, ScaffoldClient), "Mime": (1, MimeClient), "FedNova": (2, FedNovaClient)}


@pytest.fixture
def scaled(monkeypatch):
    """Scale what client 3 uploads beside its model."""

    def scale(optimizer: str, factor: float) -> None:
        position, client_class = EXTRAS[optimizer]
        train = client_class.train

        def scaling(client, *given, **options):
            answer = list(train(client, *given, **options))
            if client.client_idx == 3:
                extra = answer[position]
                scaled = {name: tensor * factor for name, tensor in extra.items()} if isinstance(extra, dict) else None
                answer[position] = extra * factor if scaled is None else scaled
            return tuple(answer)

        monkeypatch.setattr(client_class, "train", scaling)

    return scale


@pytest.mark.parametrize("optimizer", EXTRAS)
def test_extras_of_a_left_out_client_have_no_influence(plugin, judging, scaled, optimizer) -> None:
    options = {"dataset": in_order(optimizer), **judging(out=[3])}
    calm = run(optimizer, **options)
    scaled(optimizer, 1e6)
    assert same(calm, run(optimizer, **options))


def test_extras_of_a_left_out_client_have_no_influence_under_a_rule_without_weights(plugin, types, scaled) -> None:
    @register_defense("first_but_3")
    class FirstBut3(Defense):
        def judge(self, round):
            return Verdict(excluded=[client == 3 for client in round.client_ids], model=round.uploads[0])

    options = {"dataset": in_order("Mime"), "enable_defense": True, "defense_type": "first_but_3"}
    calm = run("Mime", **options)
    scaled("Mime", 1e6)
    assert same(calm, run("Mime", **options))


def test_an_attack_on_scaffolds_models_reaches_the_control_variates(plugin, monkeypatch) -> None:
    changes = []
    hooked = scaffold_trainer.ScaffoldTrainer
    inner = hooked._aggregate

    def recording(self, w_locals):
        answer = inner(self, w_locals)
        changes.append(answer[1])
        return answer

    monkeypatch.setattr(hooked, "_aggregate", recording)
    for attack in ({}, NOISE):
        run("SCAFFOLD", comm_round=1, dataset=in_order("SCAFFOLD"), **attack)
    assert distance(*changes) > 0.1


@pytest.mark.parametrize("optimizer", EXTRAS)
def test_huge_extras_of_a_kept_client_are_bounded(plugin, judging, scaled, optimizer) -> None:
    clean = run(optimizer, comm_round=3, dataset=in_order(optimizer))
    scaled(optimizer, 1e6)
    undefended = run(optimizer, comm_round=3, dataset=in_order(optimizer))
    defended = run(optimizer, comm_round=3, dataset=in_order(optimizer), **judging())
    assert distance(defended, clean) < 0.5 < 100 < distance(undefended, clean)


@pytest.mark.parametrize("defense", [{}, MULTI_KRUM], ids=["undefended", "defended"])
@pytest.mark.parametrize("optimizer", EXTRAS)
def test_extras_that_are_no_numbers_leave_the_upload_out(plugin, heard, scaled, optimizer, defense) -> None:
    scaled(optimizer, torch.nan)
    final = run(optimizer, **defense)
    assert all(tensor.isfinite().all() for tensor in final.values())
    bad = [client for report in reports(heard) for client in report.clients if client.client == 3]
    assert len(bad) == 2
    assert all(client.excluded and client.reason.startswith("its ") for client in bad)


def test_a_rule_without_weights_takes_the_median_of_gradients(plugin, scaled) -> None:
    median = {"enable_defense": True, "defense_type": "median"}
    calm = run("Mime", comm_round=3, dataset=in_order("Mime"), **median)
    scaled("Mime", -1e6)
    assert distance(calm, run("Mime", comm_round=3, dataset=in_order("Mime"), **median)) < 0.5


def test_a_rule_that_changes_types_of_numbers_does_not_stop_a_group(plugin, heard) -> None:
    final = run("HierarchicalFL", enable_defense=True, defense_type="cclip", bucket_size=1)
    assert distance(final, state_of(tiny_cnn())) > 1e-3
    assert not any(isinstance(client.client, str) for report in reports(heard) for client in report.clients)


def test_mime_goes_with_batchnorm(plugin) -> None:
    model = tiny_cnn()
    simulate(model, federated_optimizer="Mime", **OPTIMIZERS["Mime"].keys)
    assert int(model.state_dict()[COUNT]) > 0


# HierarchicalFL


def test_each_group_has_a_defense_of_its_own_and_many_groups_are_judged(plugin, heard, types) -> None:
    seen: dict[int, list[Any]] = {}

    @register_defense("witness")
    class Witness(Defense):
        def judge(self, round):
            seen.setdefault(id(self), []).append((round.number, tuple(round.client_ids)))
            return Verdict(weights=[1 / len(round.uploads)] * len(round.uploads))

    def groups(number: int) -> list[Any]:
        seen.clear()
        run(
            "HierarchicalFL",
            comm_round=2,
            epochs=2,
            group_num=number,
            enable_defense=True,
            defense_type="witness",
            **NOISE,
        )
        return sorted(seen.values(), key=str)

    two = groups(2)
    assert {event.number for event in heard if isinstance(event, Measured)} == {2, 4}  # as the reports count
    assert [[number for number, _ in rounds] for rounds in two] == [[1, 2, 3, 4]] * 2
    assert all(len({clients for _, clients in rounds}) == 1 for rounds in two)
    assert sorted(client for rounds in two for client in rounds[0][1]) == list(range(16))

    heard.clear()
    five = groups(5)
    (cloud,) = [rounds for rounds in five if isinstance(rounds[0][1][0], str)]
    assert len(five) == 6
    assert cloud == [(number, tuple(f"group {group}" for group in range(5))) for number in (2, 4)]
    of_groups = [client for report in reports(heard) for client in report.clients if isinstance(client.client, str)]
    assert of_groups
    assert not any(client.malicious for client in of_groups)


# What is refused


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            "turbo_aggregate",
            r"turbo_aggregate would ignore enable_defense here \(secure aggregation shows .* sum .*\); ",
        ),
        (
            "classical_vertical",
            r"classical_vertical would ignore enable_defense here \(in vertical .* write FedAvg\); ",
        ),
    ],
)
def test_without_models_to_judge_a_defense_is_refused(plugin, optimizer, message) -> None:
    with pytest.raises(SettingsError, match=message):
        fedml.init(fedml_args(federated_optimizer=optimizer, **MULTI_KRUM))
    with pytest.raises(SettingsError, match=message.replace("enable_defense", "enable_attack")):
        fedml.init(fedml_args(federated_optimizer=optimizer, **NOISE))


def test_they_run_as_fedmls_own_without_a_defense(plugin) -> None:
    dataset = fedml_dataset(6)
    dataset[6] = dict.fromkeys(range(6), dataset[6][0])
    assert distance(simulate(federated_optimizer="turbo_aggregate", dataset=dataset), state_of(tiny_cnn())) > 1e-3
    assert distance(simulate(federated_optimizer="classical_vertical"), state_of(tiny_cnn())) > 1e-3


@pytest.mark.parametrize("optimizer", ["FedSGD", "FedAvg_seq", "fedprox"])
def test_an_optimizer_that_fedml_does_not_have_is_named(plugin, optimizer) -> None:
    with pytest.raises(
        SettingsError, match=f"Unknown federated_optimizer '{optimizer}' .* backend: sp.* Valid: .*FedAvg"
    ):
        fedml.init(fedml_args(federated_optimizer=optimizer))


def test_the_table_has_every_optimizer_of_fedmls_simulator() -> None:
    source = inspect.getsource(SimulatorSingleProcess.__init__)
    named = re.findall(r"args\.federated_optimizer == (\w+)", source)
    assert {getattr(constants, name) for name in named} == set(TABLE["sp"])


def test_a_defense_with_models_of_its_own_needs_a_mean_that_is_the_global_model(plugin) -> None:
    own = {"enable_defense": True, "defense_type": "flcert", "defense_params": {"groups": 3}}
    with pytest.raises(SettingsError, match=r"FedOpt: flcert .* it works with FedAvg and FedProx"):
        run("FedOpt", **own)
    run("FedProx", comm_round=1, **own)


@pytest.mark.parametrize(("optimizer", "tensor"), [("FedNova", "1.num_batches_tracked"), ("FedDyn", "1.running_mean")])
def test_a_network_that_fedmls_optimizer_cannot_train_is_named(plugin, optimizer, tensor) -> None:
    with pytest.raises(SettingsError, match=f"federated_optimizer: {optimizer}: .* such as '{tensor}'; .* BatchNorm"):
        simulate(tiny_cnn(), federated_optimizer=optimizer, **OPTIMIZERS[optimizer].keys)
