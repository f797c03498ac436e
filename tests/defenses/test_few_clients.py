"""What `Defense.protects` says against tensors: one of K uploads is noise, or a million times too long."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fedml_gradcam_ae import Defense, Round
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.defenses.shared import composed
from fedml_gradcam_ae.networks.training import train_locally
from tiny import digits, state_of, tiny_cnn

CLIENTS = range(2, 7)
TRAINING = {"local_epochs": 1, "local_learning_rate": 0.05, "local_optimizer": "sgd", "local_batch_size": 16}
# Rules that look at several rounds first look at one here, and noise of a rule's own is turned off.
SETTINGS = {
    "auror": {"observe_rounds": 1},
    "deepsight": {"noise_inputs": 50},
    "fldetector": {"window": 1},
    "flcert": {"groups": 3},
    "fltrust": TRAINING,
    "weak_dp": {"noise": 0.0},
}
ROUNDS = {"fldetector": 3}
OWN = sorted(name for name, cls in registry.defenses().items() if cls.__module__.startswith("fedml_gradcam_ae."))


@pytest.fixture(scope="module")
def rounds():
    """Three rounds of honest training: pairs of a global model and what six clients make of it."""
    network = tiny_cnn().eval()
    images, labels = digits()
    model, found = state_of(network), []
    for number in range(3):
        uploads = []
        for client in range(6):
            part = slice(150 * client, 150 * client + 150)
            trained = train_locally(
                copy.deepcopy(network),
                model,
                images[part],
                labels[part],
                generator=torch.Generator().manual_seed(10 * number + client),
                epochs=1,
                learning_rate=0.05,
                optimizer="sgd",
                weight_decay=0.0,
                batch_size=16,
            )
            uploads.append({name: trained[name].detach().clone() for name in model})
        found.append((model, uploads))
        model = {name: sum(u[name].double() for u in uploads).div(6).to(model[name].dtype) for name in model}
    return found


def noise(model, upload, trained, number):
    generator = torch.Generator().manual_seed(number)
    return {n: 2 * torch.rand(t.shape, generator=generator) - 1 if n in trained else t for n, t in model.items()}


def too_long(model, upload, trained, number):
    return {n: t + 1e6 * (upload[n] - t) if n in trained else upload[n] for n, t in model.items()}


def displacement(rule, rounds, clients, bad):
    """How far the aggregate of the last round is from the honest mean, in lengths of the longest honest update."""
    network = tiny_cnn().eval()
    trained = [name for name, _ in network.named_parameters()]
    images, labels = digits()
    test = DataLoader(TensorDataset(images[-64:], labels[-64:]), batch_size=64)

    def flat(model):
        return torch.cat([model[name].double().flatten() for name in trained])

    rule.prepare(copy.deepcopy(network), test)
    for number, (model, honest) in enumerate(rounds, 1):
        uploads = [bad(model, honest[0], trained, number), *honest[1:clients]]
        round = Round(
            number=number,
            client_ids=list(range(clients)),
            uploads=uploads,
            samples=[10.0] * clients,
            global_model=model,
            network=copy.deepcopy(network),
            test_data=test,
            largest_step=None,
        )
        verdict = rule.judge(round)
    if verdict.model is not None:
        found = flat(verdict.model)
    elif any(verdict.weights):
        found = sum(weight * flat(upload) for weight, upload in zip(verdict.weights, uploads, strict=True) if weight)
    else:
        found = flat(model)
    others = [flat(upload) - flat(model) for upload in uploads[1:]]
    return float((found - flat(model) - sum(others) / len(others)).norm() / max(update.norm() for update in others))


@pytest.mark.parametrize("name", OWN)
def test_a_rule_protects_among_as_many_clients_as_it_says(rounds, name) -> None:
    cls = registry.defenses()[name]
    settings = cls.Settings(**SETTINGS.get(name, {}))
    shifts = {
        clients: max(
            displacement(cls(settings), rounds[: ROUNDS.get(name, 1)], clients, bad) for bad in (noise, too_long)
        )
        for clients in CLIENTS
        if settings.allows(clients)
    }
    protected = {clients for clients in CLIENTS if cls(settings).protects(clients)}
    assert all(shifts[clients] < 1 for clients in protected), shifts
    if any(cls(settings).protects(clients) for clients in range(1, 30)):  # or it says less than it can
        assert all(shift > 1.5 for clients, shift in shifts.items() if clients not in protected), shifts
    else:
        assert max(shifts[clients] for clients in range(4, 7)) > 1.5, shifts


COMPOSED = {
    "mixing spreads what it does not take for malicious": ("median", {"pre": ["nnm"]}, [5, 6]),
    "mixing with f of 1": ("median", {"pre": [{"type": "nnm", "malicious": 1}]}, [3, 4, 5, 6]),
    "buckets": ("median", {"pre": ["bucketing"]}, [5, 6]),
    "clipping in front of a mean": ("multi_krum", {"malicious": 0, "pre": ["norm_clipping"]}, [3, 4, 5, 6]),
    "clipping by f": ("multi_krum", {"pre": ["arc"]}, [5, 6]),
    "another rule aggregates": ("multi_krum", {"malicious": 0, "then": "median"}, [3, 4, 5, 6]),
}


@pytest.mark.parametrize("case", COMPOSED)
def test_a_composition_protects_where_it_says(rounds, case) -> None:
    name, params, protected = COMPOSED[case]
    cls = registry.defenses()[name]
    settings, found = cls.Settings(**params), []
    for clients in CLIENTS:
        try:
            composed.check(cls, settings, clients)
        except (SettingsError, ValueError):
            continue
        rule = composed.build(cls, settings)
        shifts = [displacement(composed.build(cls, settings), rounds[:1], clients, bad) for bad in (noise, too_long)]
        assert rule.protects(clients) == (max(shifts) < 1), (clients, shifts)
        if rule.protects(clients):
            found.append(clients)
    assert found == protected


def test_the_documentation_has_the_fewest_of_each() -> None:
    text = (Path(__file__).parents[2] / "docs" / "defenses.md").read_text()
    table = re.findall(r"^\| (\d+|none) \| (`.*`) \|$", text.split("## Few clients")[1].split("## ")[0], re.MULTILINE)
    found = {name: number for number, names in table for name in re.findall(r"`(\w+)`", names)}
    expected = {}
    for name in OWN:
        cls = registry.defenses()[name]
        rule = cls(cls.Settings(**(TRAINING if name == "fltrust" else {})))
        expected[name] = str(next((clients for clients in range(1, 30) if rule.protects(clients)), "none"))
    assert found == expected


def test_a_rule_that_keeps_no_settings_is_taken_for_one_of_majorities() -> None:
    class Own(Defense):
        def __init__(self, settings=None) -> None:
            pass

    assert [clients for clients in range(1, 6) if Own().protects(clients)] == [3, 4, 5]


def test_settings_decide_too() -> None:
    rules = registry.defenses()

    def protected(name, **params):
        rule = rules[name](rules[name].Settings(**params))
        return [clients for clients in range(1, 12) if rule.protects(clients)]

    assert protected("trimmed_mean", beta=0.34) == list(range(3, 12))
    assert protected("multi_krum", malicious=0, kept=2) == list(range(3, 12))
    assert protected("multi_krum", malicious=1, kept=5) == list(range(6, 12))
    assert protected("krum", malicious=1) == list(range(5, 12))
    assert protected("bulyan", malicious=1) == list(range(7, 12))
    assert protected("gradcam_ae", profile="paper", alpha=2.0) == list(range(6, 12))
    assert protected("faa_dl", nu=0.9) == list(range(3, 12))
    assert protected("d2mif", delta=0.8)[0] > 6
