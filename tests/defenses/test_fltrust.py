import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fedml.ml.trainer.my_model_trainer_classification import ModelTrainerCLS
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.defenses.fltrust import FLTrust
from judging import awkward_rounds, check_awkward, matrix, round_of, vector
from tiny import digits, state_of, tiny_cnn

TRAINING = {
    "local_epochs": 1,
    "local_learning_rate": 0.1,
    "local_optimizer": "sgd",
    "local_weight_decay": 0.0,
    "local_batch_size": 64,
}


def defense(**params) -> FLTrust:
    return FLTrust(FLTrust.Settings(**{**TRAINING, "root_images": 64, **params}))


def fedml_trains(round, **changes):
    """A model that FedML's own trainer makes of all 64 test images, in one batch."""
    images, labels = digits()
    model = copy.deepcopy(round.network)
    model.load_state_dict(round.global_model)
    args = SimpleNamespace(client_optimizer="sgd", learning_rate=0.1, weight_decay=0.0, epochs=1, **changes)
    ModelTrainerCLS(model, args).train([(images[:64], labels[:64])], torch.device("cpu"), args)
    return state_of(model)


def test_a_verdict_is_the_papers_formula(make_round) -> None:
    round = make_round(8, samples=[1.0, 50.0, 3.0, 7.0, 1.0, 1.0, 1.0, 9.0], largest_step=None)
    own = vector(round, fedml_trains(round))
    uploads = matrix(round)
    cosines = uploads @ own / np.linalg.norm(uploads, axis=1) / np.linalg.norm(own)
    trust = np.maximum(0, cosines)
    assert 0 < (trust == 0).sum() < 8
    scaled = uploads * np.linalg.norm(own) / np.linalg.norm(uploads, axis=1)[:, None]
    verdict = defense().judge(round)
    assert verdict.scores == pytest.approx((-cosines).tolist(), rel=1e-4)
    assert verdict.flagged == verdict.excluded == (trust == 0).tolist()
    np.testing.assert_allclose(vector(round, verdict.model), trust @ scaled / trust.sum(), rtol=1e-3, atol=1e-7)
    assert verdict.threshold == 0


def test_batch_norms_statistics_are_averaged_by_trust(make_round) -> None:
    round = make_round(4)
    uploads = [dict(upload) for upload in round.uploads]
    for i, upload in enumerate(uploads):
        upload["1.running_mean"] = torch.full((4,), float(i))
    round = replace(round, uploads=uploads)
    verdict = defense().judge(round)
    trust = np.maximum(0, -np.array(verdict.scores))
    assert (trust > 0).sum() > 0
    expected = (trust * np.arange(4)).sum() / trust.sum()
    assert verdict.model["1.running_mean"].tolist() == pytest.approx([expected] * 4)


def test_uploads_that_point_elsewhere_are_left_out_and_long_ones_get_no_further(make_round) -> None:
    round = make_round(1)
    own = vector(round, fedml_trains(round))
    noise = np.random.default_rng(0).normal(size=(6, len(own))) * np.linalg.norm(own) / len(own) ** 0.5
    rows = own + 0.3 * noise
    rows[1] *= -1
    rows[2] *= -1e5
    rows[3] *= 1e5
    verdict = defense().judge(round_of(rows, round.network, round.global_model))
    assert verdict.excluded == [False, True, True, False, False, False]
    aggregate = vector(round, verdict.model)
    assert np.linalg.norm(aggregate) <= np.linalg.norm(own) * 1.001
    assert aggregate @ own > 0.9 * np.linalg.norm(aggregate) * np.linalg.norm(own)


def test_when_nobody_is_trusted_the_global_model_stays(make_round) -> None:
    round = make_round(1)
    own = vector(round, fedml_trains(round))
    verdict = defense().judge(round_of(np.stack([-own, -2 * own]), round.network, round.global_model))
    assert verdict.weights == [0, 0]
    assert verdict.excluded == [True, True]


def test_an_update_of_zero_is_left_out_with_a_reason(make_round) -> None:
    round = dict(awkward_rounds(make_round))["one update zero"]
    verdict = defense().judge(round)
    assert verdict.excluded[0]
    assert list(verdict.reasons) == [100]
    assert "zero" in verdict.reasons[100]


def test_a_server_whose_training_diverges_trusts_nobody(make_round) -> None:
    verdict = defense(local_learning_rate=1e38, local_epochs=3).judge(make_round())
    assert verdict.weights == [0] * 6


class Counting(nn.Module):
    """Notes the images that a network is trained on."""

    seen: tuple = ()

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        Counting.seen = (*Counting.seen, x)
        return self.layer(x.flatten(1))


def test_the_root_images_are_drawn_once_per_run_by_the_seed() -> None:
    def trained_on(judge, number: int) -> set[bytes]:
        Counting.seen = ()
        judge.judge(round_of(np.ones((2, 650)), network, number=number))
        return {image.numpy().tobytes() for batch in Counting.seen for image in batch}

    network = Counting()
    judge = defense(root_images=20)
    first = trained_on(judge, 1)
    assert len(first) == 20
    assert trained_on(judge, 2) == first
    assert trained_on(defense(root_images=20), 5) == first  # a server that was started again
    assert trained_on(defense(root_images=20, seed=1), 1) != first
    assert len(trained_on(defense(root_images=1000), 1)) == 64


def test_the_global_random_state_is_left_alone_and_the_same_round_gets_the_same_verdict(make_round) -> None:
    round = make_round()
    state = torch.get_rng_state()
    first = defense(local_batch_size=10).judge(round)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(3)
    assert defense(local_batch_size=10).judge(round).scores == first.scores


def test_awkward_rounds(make_round) -> None:
    check_awkward(lambda: defense(root_images=16), make_round)


def test_what_is_neither_given_nor_known_is_named_with_both_places() -> None:
    with pytest.raises(SettingsError, match=r"needs local_epochs, local_batch_size: .*or epochs, batch_size in train"):
        defense(local_epochs=None, local_batch_size=None)
    with pytest.raises(SettingsError, match=r"local_weight_decay: .*weight_decay in train_args"):
        defense(local_optimizer="adam", local_weight_decay=None)
    assert defense(local_weight_decay=None)  # FedML's sgd has none


def test_empty_test_data_are_refused_with_what_they_are_for() -> None:
    images, labels = digits()
    empty = DataLoader(TensorDataset(images[:0], labels[:0]))
    with pytest.raises(ValueError, match=r"root images are drawn from the server's test data.*empty"):
        defense().prepare(tiny_cnn(), empty)
