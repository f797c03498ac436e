"""What a client's training came to is taken over from another run, and nothing else changes."""

import json

import pytest
import torch
import yaml

from benchmark import __main__ as command
from benchmark.running.training_cache import FOLDER, Memory

CONFIG = {
    "name": "remembered",
    "data": {"name": "digits", "size": 16, "train_images": 300, "test_images": 200},
    "model": {"name": "small_cnn"},
    "federation": {
        "clients": 4,
        "per_round": 4,
        "rounds": 2,
        "local_epochs": 1,
        "optimizer": "adam",
        "learning_rate": 0.002,
        "batch_size": 16,
    },
    "attacks": ["none", {"type": "uniform_noise", "attackers": 1}, {"type": "label_flip", "attackers": 1}],
    "defenses": ["none", "median"],
    "seeds": [0],
}


def results(folder, *more):
    """Each run's accuracies, and how many trainings it took over."""
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(CONFIG))
    assert command.main(["run", str(path), "--out", str(folder), "--jobs", "1", *more]) == 0
    assert not (folder / FOLDER).exists()
    lines, taken_over = {}, {}
    for result in folder.glob("*/result.json"):
        name = "--".join(result.parent.name.split("--")[:2])
        lines[name] = (result.parent / "tests.jsonl").read_text()
        taken_over[name] = json.loads(result.read_text()).get("remembered_trainings")
    return lines, taken_over


def test_results_are_the_same_bit_for_bit_and_only_what_differs_is_trained(tmp_path) -> None:
    plain, nothing = results(tmp_path / "plain")
    remembered, taken_over = results(tmp_path / "remembered", "--remember", "1")
    assert len(plain) == 6
    assert len(set(plain.values())) == 6  # else it would be easy
    assert remembered == plain
    assert set(nothing.values()) == {None}
    # Round 1 of four clients, but for the first run, and for the client whose labels are flipped.
    assert taken_over == {
        "none--none": 0,
        "none--median": 4,
        "uniform_noise--none": 4,
        "uniform_noise--median": 4,
        "label_flip--none": 3,
        "label_flip--median": 3,
    }


def test_what_was_asked_for_least_recently_goes_first(tmp_path) -> None:
    memory = Memory(tmp_path / FOLDER, limit=100_000)
    for name in ("a", "b"):
        memory.save(name, {"weights": torch.ones(10_000)})
    assert memory.load("a") is not None
    memory.save("c", {"weights": torch.ones(10_000)})
    assert memory.load("b") is None
    assert memory.load("a") is not None
    assert memory.load("c") is not None
    assert memory.remembered == 3


def test_a_torn_file_counts_as_none(tmp_path) -> None:
    memory = Memory(tmp_path / FOLDER, limit=100_000)
    memory.save("a", {"weights": torch.ones(10)})
    (memory.folder / "a").write_bytes((memory.folder / "a").read_bytes()[:50])
    assert memory.load("a") is None


@pytest.mark.parametrize("amount", ["0", "-1"])
def test_a_nonsense_amount_is_refused(amount, capsys) -> None:
    with pytest.raises(SystemExit):
        command.main(["run", "config.yaml", "--out", "out", "--remember", amount])
    assert "must be at least 1" in capsys.readouterr().err
