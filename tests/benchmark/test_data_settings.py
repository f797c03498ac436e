"""The sections data:, model: and warm_start: of a benchmark configuration."""

import pytest
import yaml

from benchmark.config import read_config
from fedml_gradcam_ae.contract.settings import SettingsError

FEDERATION = {
    "clients": 4,
    "per_round": 4,
    "rounds": 1,
    "local_epochs": 1,
    "optimizer": "adam",
    "learning_rate": 0.002,
    "batch_size": 64,
}


@pytest.fixture
def config(tmp_path):
    def config(**changes):
        path = tmp_path / "config.yaml"
        content = {
            "name": "tiny",
            "data": {},
            "model": {},
            "federation": FEDERATION,
            "attacks": ["none"],
            "defenses": ["none"],
            "seeds": [0],
        }
        path.write_text(yaml.safe_dump({**content, **changes}))
        return read_config(path)

    return config


def test_defaults_depend_on_the_partition(config) -> None:
    def found(**data):
        (read,) = config(data=data).data
        return read.beta, read.shards_per_client, read.unequal, read.least

    assert found() == (None, None, None, None)
    assert found(partition="dirichlet") == (0.5, None, None, 10)
    assert found(partition="dirichlet", beta=1, least=4) == (1, None, None, 4)
    assert found(partition="shards") == (None, 2, None, None)
    assert found(unequal=0.5) == (None, None, 0.5, 10)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"name": "cifar"},
            "Unknown data set 'cifar'. Did you mean 'cifar10'[?] Valid: cifar10, digits, folder, gtsrb[.]$",
        ),
        ({"bta": 1}, "Unknown key 'bta' in .*config.yaml: data of .* Did you mean 'beta'"),
        ({"beta": 0.5}, "beta belongs to partition: dirichlet, but partition is iid, whose keys are unequal: leave"),
        ({"partition": "shards", "beta": 0.5}, "beta belongs to partition: dirichlet, but partition is shards"),
        ({"partition": "dirichlet", "shards_per_client": 2}, "shards_per_client belongs to partition: shards"),
        ({"partition": "dirichlet", "unequal": 0.5}, "unequal belongs to partition: iid"),
        ({"least": 5}, "least belongs to unequal or partition: dirichlet, but partition is iid"),
        ({"partition": "shards", "least": 5}, "least belongs to unequal or partition: dirichlet"),
        ({"partition": "dirichlet", "beta": 0}, "data.beta: expected greater than 0, found 0"),
        ({"partition": "lda"}, "data.partition: expected 'iid', 'dirichlet' or 'shards', found 'lda'"),
        ({"root": "/data"}, "root has no meaning for digits"),
        ({"name": "folder", "root": "/data", "download": True}, "download has no meaning for folder"),
        ({"size": 4}, "data.size: expected greater than or equal to 8"),
        ({"train_images": 1.5}, "data.train_images: expected a valid integer"),
        ([1], "data must be a mapping"),
    ],
)
def test_wrong_data_are_refused(config, data, message) -> None:
    with pytest.raises(SettingsError, match=message):
        config(data=data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"name": "resnet"}},
            "Unknown model 'resnet'. Did you mean .* Valid: cnn, convnext, mobilenet_v3_large, resnet18, ",
        ),
        ({"model": {"name": 18}}, "model.name: expected a valid string"),
        (
            {"model": {"weights": "imagenet"}},
            "small_cnn has no pretrained weights 'imagenet'. Networks that have some: mob",
        ),
        ({"model": {"name": "resnet18", "weights": "imagnet"}}, "resnet18 has no pretrained weights 'imagnet'"),
        ({"model": {"channels_last": "yes"}}, "model.channels_last: expected a valid boolean"),
        ({"warm_start": {}}, "warm_start.epochs is missing"),
        ({"warm_start": {"epochs": 1, "share": 1}}, "warm_start.share: expected less than 1"),
        ({"warm_start": {"epochs": 1, "lr": 1}}, "Unknown key 'lr' in .*warm_start"),
    ],
)
def test_wrong_models_and_warm_starts_are_refused(config, changes, message) -> None:
    with pytest.raises(SettingsError, match=message):
        config(**changes)


def test_defaults_of_the_warm_start(config) -> None:
    (read,) = config(warm_start={"epochs": 4}).warm_start
    assert read.model_dump() == {
        "epochs": 4,
        "share": 0.3,
        "learning_rate": 0.001,
        "batch_size": 128,
        "optimizer": "adam",
    }
    assert config().runs()[0].warm_start is None


def test_a_result_does_not_depend_on_where_the_data_lie(config) -> None:
    def folder(**data):
        return config(data={"name": "cifar10", **data}).runs()[0].folder

    assert folder() == folder(root="/elsewhere") == folder(download=True)
    assert len({folder(), folder(size=16), folder(train_images=10), folder(test_images=10)}) == 4


def test_a_result_depends_on_everything_else(config) -> None:
    folders = {
        config(**changes).runs()[0].folder
        for changes in (
            {},
            {"data": {"unequal": 0.5}},
            {"data": {"unequal": 0.5, "least": 5}},
            {"data": {"partition": "dirichlet"}},
            {"data": {"partition": "dirichlet", "beta": 0.4}},
            {"data": {"partition": "shards"}},
            {"data": {"partition": "shards", "shards_per_client": 3}},
            {"model": {"channels_last": True}},
            {"model": {"name": "resnet18"}},
            {"model": {"name": "resnet18", "weights": "imagenet"}},
            {"warm_start": {"epochs": 1}},
            {"warm_start": {"epochs": 1, "share": 0.2}},
        )
    }
    assert len(folders) == 12


def test_a_default_written_out_names_the_same_result(config) -> None:
    written = {"partition": "dirichlet", "beta": 0.5, "least": 10}
    assert config(data={"partition": "dirichlet"}).runs()[0].folder == config(data=written).runs()[0].folder
