"""What every attack owes: usable uploads, honest ones left alone, the same again, also where the round is awkward."""

import random

import numpy as np
import pytest
import torch

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.screening import screen, upload_problem
from flat import update, updates
from tiny import digits, state_of, tiny_cnn

SMALL = {"steps": 3, "images": 8}
PAPER = {"profile": "paper", "probe_size": "native", "map_size": "native"}
COLLUDING = {
    "constrained_perturbation": SMALL,
    "adaptive_heatmap": SMALL,
    "adaptive_heatmap, own probe": {**SMALL, "probe": "own"},
    "adaptive_heatmap, paper": {**SMALL, **PAPER},
    "adaptive_heatmap, paper, own probe": {**SMALL, **PAPER, "probe": "own", "target_class": "label"},
    "alie": {},
    "alie, auto": {"z": "auto"},
    "alie, optimal": {"z": "optimal", "against": "median"},
    "fang, krum": {"rule": "krum"},
    "fang, krum, partial": {"rule": "krum", "knowledge": "partial"},
    "fang, trimmed mean": {"rule": "trimmed_mean"},
    "fang, trimmed mean, partial": {"rule": "trimmed_mean", "knowledge": "partial", "attackers": 2},
    "ipm": {},
    "ipm, optimal": {"epsilon": "optimal", "against": "krum"},
    "mimic": {},
    "min_max": {},
    "min_max, sign": {"direction": "sign"},
    "min_max, unit": {"direction": "unit"},
    "min_sum": {},
    "min_sum, sign": {"direction": "sign"},
    "min_sum, unit": {"direction": "unit"},
    "mpaf": {},
    "vgae_mp": {"nodes": 20, "epochs": 3},
}
ALONE = {
    "sign_flip": {},
    "uniform_noise": {},
    "gaussian_noise": {},
    "gaussian_noise, relative": {"relative": True},
    "free_rider": {"delta": True},
    "replay": {},
    "badnets": {"scale": "auto", "norm_bound": 1.0},
}
NEEDS_TWO = "fang, trimmed mean, partial"


def poison(case, round, attackers, **params):
    attack = registry.attacks()[case.split(",")[0]]
    return attack(attack.Settings(**{**{**COLLUDING, **ALONE}[case], **params})).poison(round, attackers)


def identical(make_round):
    upload = make_round().uploads[0]
    return make_round(uploads=[{n: t.clone() for n, t in upload.items()} for _ in range(6)])


def channels_last(make_round):
    def convert(model):
        return {
            n: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t.clone() for n, t in model.items()
        }

    round = make_round()
    return make_round(uploads=[convert(u) for u in round.uploads], global_model=convert(round.global_model))


def counting(make_round):
    """BatchNorm's counters and statistics differ."""
    uploads = [dict(upload) for upload in make_round().uploads]
    for i, upload in enumerate(uploads):
        upload["1.num_batches_tracked"] = torch.tensor(7 * i)
        upload["1.running_var"] = torch.full((4,), 1.0 + i)
    return make_round(uploads=uploads)


def at_the_start(make_round):
    """Nobody has learned anything: all updates are 0."""
    network = tiny_cnn()
    return make_round(network=network, uploads=[state_of(network) for _ in range(6)])


ROUNDS = {
    "ordinary": lambda make_round: make_round(),
    "identical": identical,
    "no change": at_the_start,
    "float64": lambda make_round: make_round(network=tiny_cnn().double()),
    "channels last": channels_last,
    "counting": counting,
}


@pytest.mark.parametrize("kind", ROUNDS)
@pytest.mark.parametrize("case", COLLUDING | ALONE)
def test_uploads_are_usable_and_the_honest_ones_stay(make_round, case, kind) -> None:
    round = ROUNDS[kind](make_round)
    before = [{name: tensor.clone() for name, tensor in upload.items()} for upload in round.uploads]
    start = {name: tensor.clone() for name, tensor in round.global_model.items()}
    for attackers in ([1, 4], [3], list(range(6))):
        if case == NEEDS_TWO and len(attackers) < 2:
            continue
        poisoned = poison(case, round, attackers)
        assert len(poisoned) == len(attackers)
        assert [upload_problem(upload, round.global_model) for upload in poisoned] == [None] * len(attackers)
        uploads = list(round.uploads)
        for position, upload in zip(attackers, poisoned, strict=True):
            uploads[position] = upload
        assert not screen(make_round(uploads=uploads, global_model=round.global_model)).rejected
    assert all(torch.equal(u[n], b[n]) for u, b in zip(round.uploads, before, strict=True) for n in b)
    assert all(torch.equal(round.global_model[n], start[n]) for n in start)


@pytest.mark.parametrize("case", COLLUDING | ALONE)
def test_channels_last_changes_nothing(make_round, case) -> None:
    plain, other = (poison(case, ROUNDS[kind](make_round), [1, 4]) for kind in ("ordinary", "channels last"))
    for name in plain[0]:
        assert torch.allclose(plain[1][name], other[1][name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("case", COLLUDING | ALONE)
def test_the_same_again_and_nobody_elses_random_numbers(make_round, case) -> None:
    images, labels = digits()
    round = make_round(number=4, local_data={101: [(images[:40], labels[:40])]})

    def states():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = states()
    first = poison(case, round, [1, 4])
    assert states() == before
    torch.manual_seed(12345)
    for upload, again in zip(first, poison(case, round, [1, 4]), strict=True):
        assert all(torch.equal(upload[name], again[name]) for name in upload)


@pytest.mark.parametrize("case", COLLUDING | ALONE)
def test_a_round_without_any_usable_upload_does_not_end_the_run(make_round, case) -> None:
    broken = [{n: t * torch.nan if n == "0.weight" else t for n, t in u.items()} for u in make_round().uploads]
    assert len(poison(case, make_round(uploads=broken), [1, 4])) == 2


@pytest.mark.parametrize("case", COLLUDING)
def test_one_broken_upload_does_not_spoil_the_attack(make_round, case) -> None:
    uploads = [dict(upload) for upload in make_round().uploads]
    uploads[2]["0.weight"] = uploads[2]["0.weight"] * torch.inf
    round = make_round(uploads=uploads)
    assert [upload_problem(upload, round.global_model) for upload in poison(case, round, [1, 4])] == [None] * 2


BOUNDED = {"constrained_perturbation", "vgae_mp", *(name for name in COLLUDING if name.startswith("adaptive_heatmap"))}


@pytest.mark.parametrize("case", COLLUDING)
def test_jittered_copies_differ_by_as_much_as_asked(make_round, case) -> None:
    round = make_round(network=tiny_cnn().double())
    partial = "partial" in case
    heard = updates(round, [1, 4] if partial else [0, 2, 3, 5])
    unit = np.linalg.norm(heard - heard.mean(axis=0), axis=1).mean()
    plain, jittered = (
        [update(round, upload) for upload in poison(case, round, [1, 4], jitter=jitter)] for jitter in (0.0, 0.1)
    )
    lengths = [np.linalg.norm(b - a) for a, b in zip(plain, jittered, strict=True)]
    if case in BOUNDED:  # projected back; and their unit is about a mean weighted by samples
        assert all(0 < length < 0.11 * unit for length in lengths)
    else:
        assert lengths == pytest.approx([0.1 * unit] * 2, rel=1e-6)
    assert np.linalg.norm((jittered[0] - plain[0]) - (jittered[1] - plain[1])) > 0.05 * unit


@pytest.mark.parametrize("case", COLLUDING)
def test_without_jitter_colluders_upload_the_same_unless_they_draw(make_round, case) -> None:
    first, second = (update(make_round(), upload) for upload in poison(case, make_round(), [1, 4]))
    assert np.array_equal(first, second) == (not case.startswith("fang, trimmed mean"))


DEGENERATE = ["constrained_perturbation", "adaptive_heatmap", "alie", "mimic", "min_max", "min_sum", "vgae_mp"]


@pytest.mark.parametrize("case", DEGENERATE)
def test_attacks_that_live_on_differences_upload_the_mean_where_there_are_none(make_round, case) -> None:
    round = identical(make_round)
    for upload in poison(case, round, [1, 4]):
        assert all(torch.equal(upload[name], round.uploads[0][name]) for name in upload)
