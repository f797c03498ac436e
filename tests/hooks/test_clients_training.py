"""What reaches the clients' own training: flipped labels, and a group's model to start from."""

import numpy as np
import pytest
import torch
from fedml.ml.trainer.my_model_trainer_classification import ModelTrainerCLS

from fedml_gradcam_ae.defenses.flcert import group_of
from fedml_gradcam_ae.recording.events import Measured, RoundReport, Tested, listening
from simulation import distance, same, simulate
from tiny import fedml_dataset, state_of, tiny_cnn

FLIP = {"enable_attack": True, "attack_type": "label_flip"}


@pytest.fixture
def training(monkeypatch):
    """By call of the trainer: the client, its labels, and the weights that it starts from."""
    seen = []
    train = ModelTrainerCLS.train

    def recording(self, train_data, device, args):
        start = state_of(self.model)
        seen.append((self.id, sorted(torch.cat([labels for _, labels in train_data]).tolist()), start))
        return train(self, train_data, device, args)

    monkeypatch.setattr(ModelTrainerCLS, "train", recording)
    return seen


def labels_of(client, clients=6):
    loader = fedml_dataset(clients)[5][client]
    return sorted(torch.cat([labels for _, labels in loader]).tolist())


def test_the_attackers_train_on_flipped_labels_in_their_rounds_and_nobody_else_does(plugin, training, heard) -> None:
    simulate(comm_round=4, **FLIP, attack_params={"attackers": [1, 4], "first_round": 2, "active": 1, "pause": 1})
    for call, (client, labels, _) in enumerate(training):
        attacking = client in (1, 4) and call // 6 + 1 in (2, 4)
        expected = sorted(9 - label for label in labels_of(client)) if attacking else labels_of(client)
        assert labels == expected
    reports = [event for event in heard if isinstance(event, RoundReport)]
    assert [[c.client for c in report.clients if c.malicious] for report in reports] == [[], [1, 4], [], [1, 4]]


def test_attackers_redrawn_each_round_are_the_same_in_training_and_in_the_report(plugin, training, heard) -> None:
    simulate(
        comm_round=3,
        client_num_in_total=9,
        client_num_per_round=4,
        **FLIP,
        attack_params={"attackers": 2, "redraw": "every_round"},
    )
    reports = [event for event in heard if isinstance(event, RoundReport)]
    for number, report in enumerate(reports):
        flipped = {
            client for client, labels, _ in training[4 * number : 4 * number + 4] if labels != labels_of(client, 9)
        }
        assert flipped == {client.client for client in report.clients if client.malicious}
        assert len(flipped) == 2


def test_without_attackers_in_the_round_training_is_untouched(plugin) -> None:
    assert distance(simulate(**FLIP, attack_params={"first_round": 9}), simulate()) < 1e-6


def test_clients_of_a_certified_ensemble_start_from_their_groups_average(plugin, training, heard) -> None:
    simulate(comm_round=3, enable_defense=True, defense_type="flcert", defense_params={"groups": 2})
    for number in range(3):
        starts = {client: start for client, _, start in training[6 * number : 6 * number + 6]}
        groups = {client: group_of(client, 2, 0) for client in starts}
        if number == 0:
            assert all(same(start, state_of(tiny_cnn())) for start in starts.values())
            continue
        for client, start in starts.items():
            twin = next(other for other in starts if groups[other] == groups[client])
            assert same(start, starts[twin])
            stranger = next(other for other in starts if groups[other] != groups[client])
            assert distance(start, starts[stranger]) > 1e-4
    assert all(c.excluded is None for e in heard if isinstance(e, RoundReport) for c in e.clients)


def test_the_accuracy_of_a_certified_ensemble_is_its_votes(plugin, heard, monkeypatch) -> None:
    from fedml_gradcam_ae.defenses.flcert import FLCert

    models = []
    judge = FLCert.judge

    def recording(self, round):
        verdict = judge(self, round)
        models.append(list(self.state()["models"]))
        return verdict

    monkeypatch.setattr(FLCert, "judge", recording)
    simulate(comm_round=2, learning_rate=0.5, enable_defense=True, defense_type="flcert", defense_params={"groups": 3})
    measured = [e.values["Test/Acc"] for e in heard if isinstance(e, Measured) and "Test/Acc" in e.values]
    images, labels = (torch.cat(parts) for parts in zip(*fedml_dataset(6)[3], strict=True))
    for accuracy, group_models in zip(measured, models, strict=True):
        network, answers = tiny_cnn().eval(), []
        for model in group_models:
            network.load_state_dict(model)
            with torch.no_grad():
                answers.append(network(images).argmax(1).numpy())
        votes = np.stack([np.bincount(column, minlength=10) for column in np.stack(answers).T])
        assert accuracy == pytest.approx((votes.argmax(axis=1) == labels.numpy()).mean())


def test_listeners_may_test_the_new_global_model_themselves(plugin, heard) -> None:
    images, labels = (torch.cat(parts) for parts in zip(*fedml_dataset(6)[3], strict=True))
    found = []

    def evaluate(event):
        if isinstance(event, Tested):
            with torch.no_grad():
                found.append(float((event.network.eval()(images).argmax(1) == labels).float().mean()))

    with listening(evaluate):
        simulate(comm_round=3, learning_rate=0.5)
    measured = [e.values["Test/Acc"] for e in heard if isinstance(e, Measured) and "Test/Acc" in e.values]
    assert found == pytest.approx(measured)
    assert len(set(found)) > 1
