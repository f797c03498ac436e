"""Obtuse angles against numpy."""

import numpy as np
import pytest
import torch

from fedml_gradcam_ae.defenses.obtuse_angle import ObtuseAngle
from judging import check_awkward, check_restart
from vectors import aggregate, round_of, rows_of, vector_of


def after(model, step: np.ndarray):
    """The model, moved by a step."""
    half = len(step) // 2
    tensors = {"first": torch.from_numpy(step[:half, None]), "second": torch.from_numpy(step[half:])}
    return {name: tensor + tensors.get(name, 0) for name, tensor in model.items()}


def moved_round(rows: np.ndarray, model, **changes):
    """A round from another global model."""
    uploads = [after(model, row) for row in rows]
    return round_of(rows, uploads=uploads, global_model=model, **changes)


def angles(rows: np.ndarray, direction: np.ndarray) -> np.ndarray:
    return rows @ direction / np.linalg.norm(rows, axis=1) / np.linalg.norm(direction)


def check(defense, round, direction) -> None:
    exact, samples = rows_of(round), np.array(round.samples)
    expected = angles(exact, direction)
    out = expected < 0
    assert 0 < out.sum() < len(out)
    verdict = defense.judge(round)
    assert verdict.scores == pytest.approx((-expected).tolist())
    assert verdict.excluded == verdict.flagged == out.tolist()
    assert np.allclose(aggregate(round, verdict), (samples * ~out) @ exact / samples[~out].sum())


def test_the_direction_is_first_the_median_update_and_then_the_global_models_last_step() -> None:
    generator, defense = np.random.default_rng(0), ObtuseAngle()
    rows = generator.normal(size=(7, 12)) + 0.3
    rows[2] = -rows.mean(axis=0)
    first = round_of(rows, samples=range(1, 8))
    check(defense, first, np.median(rows_of(first), axis=0))
    model = first.global_model
    for number in (2, 3):
        step = generator.normal(size=12)
        model = after(model, step)
        check(defense, moved_round(generator.normal(size=(7, 12)), model, number=number, samples=range(1, 8)), step)


def test_reversed_updates_are_left_out() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 30)) + 1
    rows[[2, 7]] *= -30
    verdict = ObtuseAngle().judge(round_of(rows))
    assert [client for client, out in enumerate(verdict.excluded) if out] == [2, 7]


def test_where_the_global_model_stayed_no_client_is_left_out() -> None:
    defense, rows = ObtuseAngle(), np.random.default_rng(0).normal(size=(6, 8))
    defense.judge(round_of(rows))
    verdict = defense.judge(round_of(-rows, number=2))
    assert not any(verdict.excluded)
    assert verdict.scores == [0] * 6


def test_where_all_are_left_out_the_global_model_stays() -> None:
    defense, first = ObtuseAngle(), round_of(np.ones((4, 6)))
    defense.judge(first)
    verdict = defense.judge(moved_round(np.ones((4, 6)), after(first.global_model, -np.ones(6)), number=2))
    assert verdict.weights == [0] * 4
    assert all(verdict.excluded)


def test_near_convergence_half_of_honest_clients_is_left_out() -> None:
    """Steps that are noise around nothing: what the page of defenses warns of."""
    generator, defense = np.random.default_rng(0), ObtuseAngle()
    model, left_out = round_of(np.zeros((1, 50))).global_model, 0
    for number in range(1, 11):
        round = moved_round(generator.normal(size=(20, 50)), model, number=number)
        verdict = defense.judge(round)
        model = after(model, aggregate(round, verdict))
        left_out += sum(verdict.excluded)
    assert 0.2 < left_out / 200 < 0.6
    assert vector_of(model).shape == (50,)


def test_the_last_model_survives_a_restart(make_round) -> None:
    rounds = [make_round(number=1)]
    for number in (2, 3):
        before = rounds[-1]
        rounds.append(make_round(number=number, global_model=before.uploads[number]))
    check_restart(ObtuseAngle, rounds, after=2)


def test_awkward_rounds(make_round) -> None:
    check_awkward(ObtuseAngle, make_round)
