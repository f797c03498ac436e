"""The warm start, and benchmarks that use it, from configuration to result."""

import json

import pytest
import torch
import yaml

from benchmark import __main__ as command
from benchmark import data, models
from benchmark.data.settings import Data
from benchmark.running import schedule, simulation, warm_start
from fedml_gradcam_ae.contract.settings import SettingsError

WARM = {"epochs": 3, "share": 0.5, "batch_size": 32, "learning_rate": 0.003}


@pytest.fixture
def start(make_run, tmp_path):
    """Warm-start a new network in tmp_path/out; answer the network, what was reported, what was said."""

    def start(warm=WARM, out="out", channels=1, **changes):
        run = make_run(warm_start=warm, **changes)
        network = models.create(run, 10, channels)
        said = []
        found = warm_start.warm_start(run, network, tmp_path / out, said.append)
        return network, found, said

    return start


def numbers(network):
    return torch.cat([tensor.flatten().double() for tensor in network.state_dict().values()])


def test_the_network_learns_and_its_accuracy_is_that_on_the_test_images(start, tmp_path) -> None:
    network, found, said = start()
    images = data.read(Data())
    network.eval()
    right = (network(images.test).argmax(dim=1) == images.test_labels).double().mean().item()
    assert found["accuracy"] == pytest.approx(right)
    assert right > 0.7
    assert said == [f"warm start, epoch {epoch} of 3" for epoch in (1, 2, 3)]
    assert (tmp_path / "out" / found["weights"]).exists()
    facts = json.loads((tmp_path / "out" / found["weights"]).with_suffix(".json").read_text())
    assert facts["images"] == round(0.5 * 1437)
    assert facts["accuracy"] == found["accuracy"]
    assert facts["seconds"] > 0


def test_weights_are_trained_once_and_shared_by_everything_that_starts_alike(start, tmp_path, monkeypatch) -> None:
    network, found, _ = start()

    def trained_again(*_args):
        raise AssertionError

    monkeypatch.setattr(warm_start, "train", trained_again)
    again, same, said = start(data={"partition": "dirichlet"}, clients=7)
    assert torch.equal(numbers(network), numbers(again))
    assert same == found
    assert said == []
    assert len(list((tmp_path / "out/warm-starts").iterdir())) == 2  # nothing unfinished is left behind
    for changes in (
        {"seed": 1},
        {"warm": {**WARM, "epochs": 4}},
        {"model": {"channels_last": True}},
        {"data": {"train_images": 1000}},
    ):
        with pytest.raises(AssertionError):
            start(**changes)


def test_a_seed_of_its_own_is_one_start_for_all_seeds_and_that_seeds_start(start, tmp_path) -> None:
    quick = {**WARM, "epochs": 1}
    own, found, _ = start(seed=5, warm=quick)
    for seed in (5, 6):
        shared, same, _ = start(seed=seed, warm={**quick, "seed": 5}, out=f"other{seed}")
        assert torch.equal(numbers(own), numbers(shared))
        assert same == found
    assert found["weights"] != start(seed=6, warm=quick)[1]["weights"]


def test_the_seed_decides_the_weights_and_nothing_else_is_drawn(start) -> None:
    torch.manual_seed(11)
    first, _, _ = start()
    following = torch.rand(3)
    again, _, _ = start(out="another")
    assert torch.equal(numbers(first), numbers(again))
    assert torch.equal(following, torch.rand(3))
    cached, _, _ = start()
    assert torch.equal(numbers(first), numbers(cached))
    assert torch.equal(following, torch.rand(3))
    other, _, _ = start(seed=1)
    assert not torch.equal(numbers(first), numbers(other))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_both_optimizers_lower_the_loss(make_run, optimizer) -> None:
    run = make_run(warm_start={**WARM, "optimizer": optimizer, "learning_rate": 0.02, "epochs": 2})
    images = data.read(run.data)
    network = models.create(run, 10, 1)

    def loss():
        with torch.no_grad():
            return torch.nn.functional.cross_entropy(network(images.train), images.train_labels).item()

    before = loss()
    warm_start.train(network, images.train, images.train_labels, run.warm_start)
    assert loss() < before / 2


def test_batches_of_one_image_are_trained_on_only_if_they_are_asked_for(make_run) -> None:
    seen = []

    class Counting(torch.nn.Linear):
        def forward(self, inputs):
            seen.append(len(inputs))
            return super().forward(inputs)

    images, labels = torch.rand(5, 3), torch.tensor([0, 1, 0, 1, 0])
    for batch_size, expected in ((2, [2, 2]), (1, [1] * 5)):
        seen.clear()
        settings = make_run(warm_start={"epochs": 1, "batch_size": batch_size}).warm_start
        warm_start.train(Counting(3, 2), images, labels, settings)
        assert seen == expected


def test_weights_that_cannot_be_read_are_named(start, tmp_path) -> None:
    _, found, _ = start()
    path = tmp_path / "out" / found["weights"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SettingsError, match=r"\.safetensors cannot be read .*: delete it"):
        start()


def test_channels_last_survives_the_cache(start) -> None:
    for _ in ("trained", "loaded"):
        network, _, _ = start(model={"channels_last": True})
        assert network[4].weight.is_contiguous(memory_format=torch.channels_last)
        assert not network[4].weight.is_contiguous()


def test_a_share_of_nothing_is_refused(start) -> None:
    with pytest.raises(SettingsError, match=r"0\.0001 of 1437 training images is 0: raise the share"):
        start(warm={"epochs": 1, "share": 0.0001})


CONFIG = {
    "name": "tiny",
    "model": {"name": "small_cnn", "channels_last": True},
    "federation": {
        "clients": 3,
        "per_round": 3,
        "rounds": 2,
        "local_epochs": 1,
        "optimizer": "adam",
        "learning_rate": 0.002,
        "batch_size": 16,
    },
    "warm_start": {"epochs": 1, "share": 0.3, "batch_size": 16},
    "attacks": [{"type": "uniform_noise", "attackers": 1}],
    "defenses": ["none", "median"],
    "seeds": [0],
}


@pytest.fixture
def benchmark_on(tmp_path):
    def run(content, out="out"):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({**CONFIG, **content}))
        return command.main(["run", str(path), "--out", str(tmp_path / out), "--jobs", "1"])

    return run


def accuracy_of(folder):
    return [json.loads(line)["accuracy"] for line in (folder / "tests.jsonl").read_text().splitlines()]


def test_a_benchmark_on_cifar10_files_with_warm_start(benchmark_on, cifar10_folder, tmp_path, monkeypatch) -> None:
    networks = []
    create = models.create
    monkeypatch.setattr(
        models, "create", lambda *args, **kwargs: networks.append(create(*args, **kwargs)) or networks[-1]
    )
    asked = {"name": "cifar10", "root": str(cifar10_folder), "partition": "dirichlet", "least": 5}
    assert benchmark_on({"data": asked}) == 0

    out = tmp_path / "out"
    results = {path.parent: json.loads(path.read_text()) for path in out.glob("*/result.json")}
    assert len(results) == 4
    accuracies = {folder: accuracy_of(folder) for folder in results}
    assert [len(accuracy) for accuracy in accuracies.values()] == [2] * 4
    assert len({result["warm_start"]["weights"] for result in results.values()}) == 1
    assert len(list(out.glob("warm-starts/*.safetensors"))) == 1
    assert (out / "partition-seed0.png").stat().st_size > 5000
    # FedML's training, loading and averaging keep the layout.
    assert len(networks) == 5
    assert all(network[4].weight.is_contiguous(memory_format=torch.channels_last) for network in networks)
    assert not any(network[4].weight.is_contiguous() for network in networks)

    # A result must not depend on whether its warm start was trained just before or loaded.
    first = next(folder for folder, result in results.items() if folder.name.startswith("none--none"))
    (first / "result.json").unlink()
    assert benchmark_on({"data": asked}) == 0
    assert accuracy_of(first) == accuracies[first]


def test_every_network_has_its_warm_start_before_the_first_run(benchmark_on, tmp_path, monkeypatch) -> None:
    def simulate(_run, out, *_):
        assert len(list(out.glob("warm-starts/*.safetensors"))) == 2

    monkeypatch.setattr(schedule, "simulate", simulate)
    small = {"name": "digits", "train_images": 100, "test_images": 20}
    assert benchmark_on({"data": small, "model": {"name": ["small_cnn", "resnet20"]}, "defenses": ["none"]}) == 0
    assert [path.name for path in tmp_path.glob("out/partition*")] == ["partition-seed0.png"]


def test_missing_data_stop_the_benchmark_before_anything_is_written(benchmark_on, tmp_path, capsys) -> None:
    assert benchmark_on({"data": {"name": "cifar10", "root": str(tmp_path / "nowhere")}}) == 2
    assert "data.download: true" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_that_are_finished_need_no_data(benchmark_on, cifar10_folder, tmp_path, monkeypatch) -> None:
    asked = {"data": {"name": "cifar10", "root": str(cifar10_folder)}, "warm_start": None, "defenses": ["none"]}
    assert benchmark_on(asked) == 0
    assert "warm_start" not in json.loads(next((tmp_path / "out").glob("*/result.json")).read_text())

    def read(*_args):
        raise AssertionError

    monkeypatch.setattr(data, "class_counts", read)
    monkeypatch.setattr(simulation.data, "read", read)
    assert benchmark_on(asked) == 0
