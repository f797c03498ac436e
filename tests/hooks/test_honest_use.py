"""Whole simulations with networks and test data that are not the textbook's."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.recording.events import Measured, RoundReport
from odd import ODD
from simulation import simulate
from tiny import digits, fedml_dataset, tiny_cnn

DEFENSES = {
    "robust": {"defense_type": "gradcam_ae"},
    "fltrust": {"defense_type": "fltrust", "defense_params": {"root_images": 40}},
    "flcert": {"defense_type": "flcert", "defense_params": {"groups": 2}},
    "flip": {"defense_type": "krum", "attack_type": "label_flip", "enable_attack": True, "attack_params": {}},
}

ATTACK = {"enable_attack": True, "attack_type": "sign_flip", "attack_params": {"attackers": 1}}


def run(case, model=None, dataset=None, **params):
    """The values of the final model, which do not depend on what its layers are called."""
    changes = {"enable_defense": True, **DEFENSES[case]}
    changes["defense_params"] = {**changes.get("defense_params", {}), **params}
    return list(simulate(model, dataset, **changes).values())


@pytest.mark.parametrize("case", DEFENSES)
@pytest.mark.parametrize("kind", ["tuple", "dict", "DataParallel", "aux in training"])
def test_a_simulation_ends_as_with_the_plain_network(plugin, heard, case, kind) -> None:
    build, _ = ODD[kind]
    network = build()
    found, expected = run(case, network), run(case)
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(found, expected, strict=True))
    measured = [dict(event.values) for event in heard if isinstance(event, Measured)]
    assert measured
    assert measured[: len(measured) // 2] == [pytest.approx(one) for one in measured[len(measured) // 2 :]]
    assert not network._forward_hooks


def test_the_defenses_setting_tells_fedmls_trainer_too(plugin) -> None:
    found = run("robust", ODD["dict, by key"][0](), logits="b")
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(found, run("robust"), strict=True))


def two_classes(dataset):
    """Clients and a server that tell even digits from odd ones."""

    def halved(loader):
        if loader is None:
            return None
        images, labels = loader.dataset.tensors
        return DataLoader(TensorDataset(images, labels % 2), batch_size=loader.batch_size)

    dataset[2:4] = [halved(loader) for loader in dataset[2:4]]
    dataset[5:7] = [{client: halved(loader) for client, loader in part.items()} for part in dataset[5:7]]
    return dataset


@pytest.mark.parametrize("case", DEFENSES)
def test_one_output_is_trained_and_judged(plugin, heard, case) -> None:
    network = tiny_cnn()
    network[5] = nn.Linear(16, 1)
    start = network[5].weight.detach().clone()
    simulate(network, two_classes(fedml_dataset(6)), enable_defense=True, **DEFENSES[case])
    assert not torch.equal(network[5].weight, start)
    assert len([event for event in heard if isinstance(event, RoundReport)]) == 2


@pytest.mark.parametrize("case", ["robust", "fltrust"])
def test_nan_among_the_servers_test_images_is_named_and_blames_no_client(plugin, heard, caplog, case) -> None:
    def dataset(bad):
        found = fedml_dataset(6)
        images, labels = (tensor[-200:].clone() for tensor in digits())
        images[bad] = torch.nan
        found[3] = DataLoader(TensorDataset(images, labels), batch_size=100)
        return found

    with caplog.at_level(logging.WARNING, "fedml_gradcam_ae"):
        run(case, dataset=dataset(slice(0, 120)))
    assert "are left out, since they hold NaN or infinity: positions " in caplog.text
    reports = [event for event in heard if isinstance(event, RoundReport)]
    assert len(reports) == 2
    for report in reports:
        excluded = sum(client.excluded for client in report.clients)
        assert excluded == 0 if case == "robust" else excluded < 6
    with pytest.raises(ValueError, match=r"server's test data\. None of the 200 images can be used: 200 hold NaN"):
        run(case, dataset=dataset(slice(None)))


class Rotated(nn.Module):
    """A network with a complex parameter."""

    def __init__(self):
        super().__init__()
        self.plain, self.phase = tiny_cnn(), nn.Parameter(torch.ones(1, dtype=torch.complex64))

    def forward(self, images):
        return self.plain(images) * self.phase.abs()


@pytest.mark.parametrize(
    "settings", [{"enable_defense": True, "defense_type": "krum"}, ATTACK], ids=["defense", "attack"]
)
def test_a_complex_parameter_is_refused_at_the_start(plugin, settings) -> None:
    with pytest.raises(SettingsError, match=r"^phase of the network is complex: .* turn enable_defense"):
        simulate(Rotated(), **settings)


def test_a_complex_parameter_is_averaged_where_nothing_acts(plugin) -> None:
    assert simulate(Rotated())["phase"].is_complex()
