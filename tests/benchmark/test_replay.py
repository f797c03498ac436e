"""Replay sets: what is stored of a round, and what is made of it."""

import csv

import numpy as np
import pytest
import torch

from benchmark.studies.replay import judge
from benchmark.studies.replay.__main__ import main as make
from benchmark.studies.replay.file import load, save
from benchmark.studies.replay.recorder import REFERENCES, Recorder, Reference, Staged
from benchmark.studies.replay.views import View
from fedml_gradcam_ae.attacks.alie import ALittleIsEnough
from fedml_gradcam_ae.attacks.sign_flip import SignFlip
from fedml_gradcam_ae.heatmaps import class_maps, grad_cam, resize
from fedml_gradcam_ae.networks.batchnorm import statistics_of
from fedml_gradcam_ae.networks.images import draw_images, seeded_generator

FIRST = len(REFERENCES)
TRAINING = {"epochs": 1, "learning_rate": 0.1, "optimizer": "sgd", "weight_decay": 0.0, "batch_size": 8}


def staged(cls, **params):
    settings = cls.Settings(**params)
    return Staged(cls.__name__, cls(settings), settings)


@pytest.fixture
def recorded(make_round):
    cases = [Staged("none", None, None), staged(SignFlip, attackers=2), staged(ALittleIsEnough, attackers=2)]
    views = [View(8, ("0", "auto")), View(4, ("2",))]
    recorder = Recorder(cases, views, 4, seed=0, reference=Reference(8, TRAINING), local_data={})
    round = make_round(clients=8)
    state = torch.get_rng_state()
    verdict = recorder.judge(round)
    assert verdict.weights == [1 / 8] * 8
    assert torch.equal(torch.get_rng_state(), state)
    return round, recorder.rounds


def test_maps_and_logits_of_every_upload_are_those_of_the_packages_own_functions(recorded) -> None:
    round, (arrays,) = recorded
    images, labels = draw_images(round.test_data, 12, seeded_generator(0, 7, 1))
    images, labels = images[:4], labels[:4]
    assert arrays["labels"].tolist() == labels.tolist()
    models = [round.global_model, *round.uploads]
    rows = [0, *range(FIRST, FIRST + 8)]
    expected = class_maps(round.network, models, resize(images, 4), "2")
    assert np.allclose(arrays["4/classes"][rows], expected.numpy(), atol=1e-6)
    for layer in ("0", "2"):
        positive = grad_cam(round.network, models, images, layer, labels)
        assert np.allclose(np.maximum(arrays[f"8/{layer}"][rows], 0), positive.numpy(), atol=1e-6)
    round.network.load_state_dict(round.uploads[3])
    assert np.allclose(arrays["8/logits"][FIRST + 3], round.network(images).detach().numpy(), atol=1e-6)


def test_statistics_are_of_the_smallest_view_and_of_every_upload(recorded) -> None:
    round, (arrays,) = recorded
    images, _ = draw_images(round.test_data, 12, seeded_generator(0, 7, 1))
    small = resize(images[:4], 4)
    expected = statistics_of(round.network, round.global_model, round.uploads, small)
    assert np.allclose(arrays["stored"][FIRST : FIRST + 8], expected.stored)
    assert np.allclose(arrays["measured"][FIRST : FIRST + 8], expected.measured, atol=1e-5)
    assert arrays["layers"].tolist() == [0] * 4
    assert arrays["samples"].tolist() == round.samples


def test_a_case_replaces_the_attackers_uploads_and_stores_copies_once(recorded) -> None:
    _, (arrays,) = recorded
    none, flipped, alie = arrays["cases"]
    assert none.tolist() == list(range(FIRST, FIRST + 8))
    assert arrays["malicious"].sum(axis=1).tolist() == [0, 2, 2]
    bad = arrays["malicious"][1]
    assert (flipped[~bad] == none[~bad]).all()
    assert len(set(flipped[bad])) == 2
    assert len(set(alie[arrays["malicious"][2]])) == 1
    assert len(arrays["8/logits"]) == FIRST + 8 + 2 + 1
    signs = np.where(bad, -1, 1)
    assert np.allclose(arrays["grams"][1], arrays["grams"][0] * np.outer(signs, signs), rtol=1e-3, atol=1e-6)


def test_the_file_keeps_everything_and_is_judged_as_the_defense_would(recorded, tmp_path, capsys, monkeypatch) -> None:
    _, rounds = recorded
    few = {
        name: judge.VARIANTS[name]
        for name in ("robust", "copies alone", "copies alone, of updates", "means alone", "deviation instead of errors")
    }
    monkeypatch.setattr(judge, "VARIANTS", few)
    cases = [{"name": name, "attackers": share} for name, share in (("none", 0.0), ("sign_flip", 0.25), ("alie", 0.25))]
    about = {"data": {"name": "digits", "partition": "iid"}, "model": {"name": "tiny"}, "cases": cases}
    for seed, name in enumerate(("first", "second")):
        save(tmp_path / f"{name}.npz", {**about, "seed": seed}, rounds * 3)
    replay = load(tmp_path / "first.npz")
    assert replay.about == {**about, "seed": 0, "rounds": 3}
    assert all(np.array_equal(replay.rounds[2][name], array) for name, array in rounds[0].items())

    out = tmp_path / "table.csv"
    files = [str(tmp_path / f"{name}.npz") for name in ("first", "second", "first")]  # the same one twice counts once
    assert judge.main([*files, "--ablate", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "digits, tiny, iid" in printed
    with out.open(newline="") as file:
        rows = {(row["attack"], row["variant"]): row for row in csv.DictReader(file)}
    assert len(rows) == 3 * len(judge.VARIANTS)
    for variant in ("copies alone", "copies alone, of updates"):
        copies = rows["alie", variant]
        assert [float(copies[name]) for name in ("AUROC", "recall", "recall per vote")] == [1, 1, 1]
    assert float(rows["alie", "means alone"]["recall"]) == 0  # of 4 channels, means are not looked at
    assert copies["federations"] == "2"
    assert float(copies["recall, low"]) == 1
    assert rows["none", "robust"]["recall"] == ""


def test_scores_of_a_variant_count_at_their_threshold() -> None:
    truth = [True, False, False]
    rounds = [([2.0, 0.5, 1.5], truth), ([2.0, 0.5, 0.5], truth), ([0.5, 0.5, 1.5], truth)]
    found = judge.figures(rounds)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["FPR"] == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)
    assert (found["recall per vote"], found["FPR per vote"]) == (1, 0.5)
    assert found["AUROC"] == pytest.approx((1 + 1 + 0.25) / 3)


def test_from_a_configuration_to_a_judged_table(tmp_path, capsys) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "name: t\n"
        "data: {name: digits, partition: iid}\n"
        "model: {name: small_cnn}\n"
        "federation: {clients: 6, rounds: 1, local_epochs: 1, optimizer: adam, learning_rate: 0.001, batch_size: 32}\n"
        "attacks: [none, alie]\n"
        "defenses: [none]\n"
        "seeds: [3]\n"
    )
    command = [str(config), "--out", str(tmp_path), "--views", "8:10", "--attackers", "0.34", "--images", "4"]
    assert make([*command, "--reference-images", "8"]) == 0
    (path,) = tmp_path.glob("*.npz")
    replay = load(path)
    assert replay.about["seed"] == 3
    assert replay.about["cases"][1] == {"name": "alie", "attackers": 0.34}
    assert replay.rounds[0]["malicious"].sum(axis=1).tolist() == [0, 2]
    means, again = tmp_path / "means.csv", tmp_path / "again.csv"
    assert judge.main([str(path), "--federations", str(tmp_path / "judged.csv"), "--out", str(means)]) == 0
    assert "alie" in capsys.readouterr().out

    judged = tmp_path / "judged.csv"
    assert judge.main([str(judged), "--out", str(again)]) == 0
    assert again.read_text() == means.read_text()
    lines = judged.read_text()
    judged.write_text(lines + "".join(line.replace(",3,", ",4,") for line in lines.splitlines(keepends=True)[1:]))
    assert judge.main([str(path), str(judged), "--out", str(again)]) == 0  # seed 3 is in both, and counts once
    with again.open(newline="") as file:
        assert {row["federations"] for row in csv.DictReader(file)} == {"2"}


@pytest.mark.parametrize("view", ["64", "x:layer4", "64:", "64:layer3,"])
def test_a_view_that_cannot_be_read(view, tmp_path, capsys) -> None:
    assert make(["nothing.yaml", "--out", str(tmp_path), "--views", view]) == 2
    assert f"found {view!r}" in capsys.readouterr().err


def test_a_file_that_is_missing(capsys) -> None:
    assert judge.main(["nowhere.npz"]) == 2
    assert "no such file: nowhere.npz" in capsys.readouterr().err
