"""The data sets: what is read, how it is scaled, and what is said about data that are not there."""

import pickle
import re
import shutil
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import interpolate

from benchmark import data
from benchmark.data import registry
from benchmark.data.settings import Data
from benchmark.data.stratified import stratified
from fedml_gradcam_ae.contract.settings import SettingsError


def test_digits_are_the_same_tensors_as_ever(make_run) -> None:
    bunch = load_digits()
    small = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    images = interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    train, test = train_test_split(range(1797), test_size=0.2, stratify=torch.tensor(bunch.target), random_state=0)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(3))

    loaded = data.load(make_run(clients=7, seed=3))

    for client, part in enumerate(order.tensor_split(7)):
        positions = [train[i] for i in part.tolist()]
        found, labels = loaded[5][client].dataset.tensors
        assert torch.equal(found, images[positions])
        assert labels.tolist() == bunch.target[positions].tolist()
    assert torch.equal(loaded[3].dataset.tensors[0], images[test])
    assert loaded[0] == 1437 == sum(loaded[4].values())
    assert loaded[7] == 10


def test_cifar10_pixels_are_scaled_and_normalized_by_channel(cifar10_folder, make_run) -> None:
    with (cifar10_folder / "cifar-10-batches-py/test_batch").open("rb") as file:
        batch = pickle.load(file)
    loaded = data.load(make_run({"name": "cifar10", "root": str(cifar10_folder)}))
    images, labels = loaded[3].dataset.tensors
    pixels = torch.tensor(batch["data"]).reshape(20, 3, 32, 32).double() / 255
    for channel, (mean, std) in enumerate([(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]):
        torch.testing.assert_close(images[:, channel].double(), (pixels[:, channel] - mean) / std, rtol=1e-5, atol=1e-5)
    assert labels.tolist() == batch["labels"]
    assert (loaded[0], loaded[1], loaded[7]) == (100, 20, 10)
    assert images.dtype == torch.float32


def test_all_training_batches_of_cifar10_are_read_and_size_scales_them(cifar10_folder) -> None:
    images = data.read(Data(name="cifar10", root=str(cifar10_folder), size=16))
    assert images.train.shape == (100, 3, 16, 16)
    assert images.train.dtype == torch.uint8
    assert images.classes[3] == "cat"
    assert torch.bincount(images.train_labels).tolist() == [10] * 10


def test_gtsrb_takes_training_labels_from_folders_and_test_labels_from_the_table(gtsrb_folder) -> None:
    images = data.read(Data(name="gtsrb", root=str(gtsrb_folder)))
    assert images.train.shape == (18, 3, 32, 32)
    assert images.test_labels.tolist() == [2, 0, 1, 2]
    for pixels, label in [
        *zip(images.train, images.train_labels, strict=True),
        *zip(images.test, images.test_labels, strict=True),
    ]:
        for channel in range(3):
            assert (pixels[channel] == (200 if channel == label else 0)).all()


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_folder_has_training_and_test_or_validation_pictures(picture_folder, name) -> None:
    (picture_folder / "test").rename(picture_folder / name)
    images = data.read(Data(name="folder", root=str(picture_folder), size=24))
    assert images.classes == ["dark", "light"]
    assert images.train.shape == (10, 3, 24, 24)
    assert images.test.shape == (4, 3, 24, 24)
    assert (images.test[images.test_labels == 1] == 250).all()
    assert (images.test[images.test_labels == 0] == 10).all()


def test_images_are_read_once_per_process_whatever_the_partition(gtsrb_folder) -> None:
    first = data.read(Data(name="gtsrb", root=str(gtsrb_folder), train_images=9))
    shutil.rmtree(gtsrb_folder)
    again = data.read(Data(name="gtsrb", root=str(gtsrb_folder), train_images=9, partition="dirichlet"))
    assert again is first
    with pytest.raises(SettingsError, match="is not there"):
        data.read(Data(name="gtsrb", root=str(gtsrb_folder), train_images=12))


def test_a_subset_has_every_class_in_its_share_and_is_the_same_for_every_seed(make_run) -> None:
    asked = {"train_images": 200, "test_images": 50}
    loads = [data.load(make_run(asked, seed=seed)) for seed in (0, 1)]
    assert [(loaded[0], loaded[1]) for loaded in loads] == [(200, 50)] * 2
    assert torch.equal(loads[0][3].dataset.tensors[0], loads[1][3].dataset.tensors[0])
    images = [{tuple(image.flatten().tolist()) for image in loaded[2].dataset.tensors[0]} for loaded in loads]
    assert images[0] == images[1]
    assert len(images[0]) == 200
    whole = torch.bincount(data.read(Data()).train_labels) * 200 / 1437
    part = torch.bincount(loads[0][2].dataset.tensors[1])
    assert (part - whole).abs().max() < 1


def test_stratified_rounds_to_the_largest_remainders() -> None:
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    chosen = stratified(labels, 4)  # shares 2.0, 1.2, 0.8
    assert torch.bincount(labels[chosen]).tolist() == [2, 1, 1]
    assert chosen == sorted(set(chosen))
    assert stratified(labels, 10) == list(range(10))
    assert stratified(labels, 4, seed=2) != chosen


def test_an_epoch_does_not_end_with_a_batch_of_one_image(make_run) -> None:
    """ResNet-18's last maps are 1 x 1 on 32 x 32 pixels, and BatchNorm cannot be trained on one number."""
    loaded = data.load(make_run({"train_images": 164}, clients=4, batch_size=10))
    assert [[len(labels) for _, labels in loaded[5][client]] for client in range(4)] == [[10] * 4] * 4
    assert sum(len(labels) for _, labels in loaded[2]) == 164
    loaded = data.load(make_run({"train_images": 164}, clients=4, batch_size=13))
    assert [len(labels) for _, labels in loaded[5][0]] == [13, 13, 13, 2]


def pattern(*words):
    return "(?s)" + ".*".join(re.escape(str(word)) for word in words)


def test_missing_cifar10_says_how_to_get_it(tmp_path) -> None:
    words = ("cifar10 is not there", tmp_path / "cifar-10-batches-py", "data.download: true", "cifar-10-python.tar.gz")
    with pytest.raises(SettingsError, match=pattern(*words, "data.root")):
        data.read(Data(name="cifar10", root=str(tmp_path)))


def test_cifar10_as_pictures_is_normalized_as_cifar10(picture_folder, tmp_path) -> None:
    (tmp_path / "root").mkdir()
    picture_folder.rename(tmp_path / "root/cifar10")
    images = data.read(Data(name="cifar10", root=str(tmp_path / "root"), size=24))
    assert images.classes == ["dark", "light"]
    assert images.train.shape == (10, 3, 24, 24)
    assert images.mean == (0.4914, 0.4822, 0.4465)


def test_the_default_place_is_in_the_checkout_and_not_in_git() -> None:
    from benchmark.data.place import root_of

    root = root_of(Data(name="cifar10"))
    checkout = Path(__file__).parents[2]
    assert root == checkout / "data"
    assert "/data/" in (checkout / ".gitignore").read_text().splitlines()


def test_a_damaged_batch_of_cifar10_is_named(cifar10_folder) -> None:
    (cifar10_folder / "cifar-10-batches-py/data_batch_3").write_bytes(b"cut short")
    with pytest.raises(SettingsError, match=pattern("incomplete or damaged", ": data_batch_3. Delete")):
        data.read(Data(name="cifar10", root=str(cifar10_folder)))


def test_missing_gtsrb_says_how_to_get_it(tmp_path) -> None:
    words = ("gtsrb is not there", tmp_path / "gtsrb", "data.download: true", "GTSRB-Training_fixed.zip", "sid.erda.dk")
    with pytest.raises(SettingsError, match=pattern(*words, "gtsrb/GTSRB/Training/00000/*.ppm")):
        data.read(Data(name="gtsrb", root=str(tmp_path)))


@pytest.mark.parametrize(("name", "source"), [("cifar10", "www.cs.toronto.edu"), ("gtsrb", "sid.erda.dk")])
def test_a_download_that_fails_says_where_to_put_the_files(tmp_path, monkeypatch, name, source) -> None:
    def offline(*_args, **_kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    words = (f"{name} could not be downloaded from", source, "no route to host", "without internet")
    with pytest.raises(SettingsError, match=pattern(*words)):
        data.read(Data(name=name, root=str(tmp_path), download=True))


def test_gtsrb_laid_out_in_another_way_is_refused(gtsrb_folder) -> None:
    base = gtsrb_folder / "gtsrb"

    def refused(*words, root=gtsrb_folder):
        with pytest.raises(SettingsError, match=pattern(*words)):
            data.read(Data(name="gtsrb", root=str(root)))

    refused("its parent may be the root", root=base)
    table = base / "GT-final_test.csv"
    content = table.read_text()
    table.write_text(content.replace("ClassId", "Label"))
    refused("the test images of gtsrb", "column 'ClassId' is missing", "Expected in")
    table.write_text(content.replace(";2\n", ";7\n").replace(";2\r\n", ";7\n"))
    refused("must list test images of the classes 0 to 2", "found [0, 1, 7]")
    table.unlink()
    refused("the test images of gtsrb", "GT-final_test.csv")
    table.write_text(content)
    shutil.rmtree(base / "GTSRB/Training/00001")
    refused("must be 00000, 00001, ... without a gap, found 00000, 00002")
    shutil.rmtree(base / "GTSRB/Training")
    refused("the train images of gtsrb", "Expected in")


def test_folders_laid_out_in_another_way_are_refused(picture_folder, gtsrb_folder) -> None:
    def refused(*words, root=str(picture_folder)):
        with pytest.raises(SettingsError, match=pattern(*words)):
            data.read(Data(name="folder", root=root))

    refused("data.root is missing", "train/CLASS/*.png", root=None)
    refused("train does not exist", "data.name: gtsrb reads it", root=str(gtsrb_folder))
    (picture_folder / "train/light/0.png").write_bytes(b"\x89PNG cut short")
    refused("light/0.png cannot be read as a picture")
    shutil.rmtree(picture_folder / "test/dark")
    refused("must hold the same classes", "dark")
    (picture_folder / "test/dark").mkdir()
    refused("dark", "Expected in")
    shutil.rmtree(picture_folder / "test")
    refused("test does not exist")


def test_more_images_than_there_are_are_refused(gtsrb_folder) -> None:
    words = ("data.train_images of gtsrb: expected at most 18", "found 19")
    with pytest.raises(SettingsError, match=pattern(*words)):
        data.read(Data(name="gtsrb", root=str(gtsrb_folder), train_images=19))


def test_one_decorated_function_adds_a_data_set(make_run, monkeypatch) -> None:
    monkeypatch.setattr(registry, "_entries", dict(registry.data_sets()))

    @data.register_data("stripes")
    def stripes(settings):
        labels = torch.arange(8) % 2
        images = labels[:, None, None, None] * torch.ones(8, 2, settings.size, settings.size)
        split = data.Split(labels, lambda positions: images[positions])
        return data.Source(split, split, ["off", "on"], mean=[0.0, 0.5], std=[1.0, 0.5])

    loaded = data.load(make_run({"name": "stripes", "size": 8}, clients=2))
    images, labels = loaded[3].dataset.tensors
    assert images[labels == 0].amin(dim=(0, 2, 3)).tolist() == [0, -1]
    assert images[labels == 1].amax(dim=(0, 2, 3)).tolist() == [1, 1]
    assert loaded[7] == 2
    with pytest.raises(ValueError, match=r"'stripes' is taken by .*stripes: choose another name"):
        data.register_data("stripes")(lambda settings: stripes(settings))


def test_results_on_other_images_are_not_mixed(gtsrb_folder, tmp_path) -> None:
    out = tmp_path / "out"
    data.record(Data(name="gtsrb", root=str(gtsrb_folder)), out)
    moved = tmp_path / "elsewhere"
    gtsrb_folder.rename(moved)
    data.record(Data(name="gtsrb", root=str(moved), partition="shards"), out)
    data.record(Data(name="gtsrb", root=str(moved), train_images=9), out)
    assert len(list(out.iterdir())) == 2

    (moved / "gtsrb/GTSRB/Training/00000/00000_00000.ppm").unlink()
    gtsrb_folder.symlink_to(moved)  # the same place under a name that was not read yet
    data.images._read.cache_clear()
    with pytest.raises(SettingsError, match=pattern("results on other images of gtsrb (18 training", "--out")):
        data.record(Data(name="gtsrb", root=str(moved)), out)
