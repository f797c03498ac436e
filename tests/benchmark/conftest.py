"""Runs to load data for, and tiny data sets on disk in the format of the real ones."""

import csv
import hashlib
import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from benchmark.config import Run, Training, WarmStart
from benchmark.data.settings import Data
from benchmark.models.settings import Model

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def make_run():
    def make(data=None, model=None, warm_start=None, clients=4, batch_size=64, seed=0):
        return Run(
            data=Data(**(data or {})),
            model=Model(**(model or {})),
            federation=Training(
                clients=clients,
                per_round=clients,
                rounds=1,
                local_epochs=1,
                optimizer="adam",
                learning_rate=0.002,
                batch_size=batch_size,
            ),
            warm_start=None if warm_start is None else WarmStart(**warm_start),
            attack={"type": "none"},
            defense={"type": "none"},
            watch=[],
            vote_every=3,
            threads=1,
            seed=seed,
        )

    return make


@pytest.fixture
def cifar10_folder(tmp_path, monkeypatch):
    """100 training and 20 test images in CIFAR-10's batches; torchvision's checksums become those of these files."""
    root = tmp_path / "data"
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)

    def write(name, content):
        content = pickle.dumps(content)
        (folder / name).write_bytes(content)
        return name, hashlib.md5(content).hexdigest()

    def batch(name, images):
        pixels = generator.integers(0, 256, (images, 3072), dtype=np.uint8)
        return write(name, {"data": pixels, "labels": [i % 10 for i in range(images)]})

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}", 20) for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch", 20)])
    name, checksum = write("batches.meta", {"label_names": CIFAR10_CLASSES})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})
    return root


def plain(path, color, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def gtsrb_folder(tmp_path):
    """Three classes in GTSRB's layout, plain pictures of several shapes: red is class 0, green 1, blue 2."""
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    root = tmp_path / "data"
    base = root / "gtsrb"
    for label, color in enumerate(colors):
        for i in range(6):
            plain(base / f"GTSRB/Training/{label:05d}/00000_{i:05d}.ppm", color, (20 + 7 * i, 30))
    rows = []
    for i, label in enumerate([2, 0, 1, 2]):
        plain(base / f"GTSRB/Final_Test/Images/{i:05d}.ppm", colors[label], (25, 40))
        rows.append([f"{i:05d}.ppm", 25, 40, 5, 5, 20, 35, label])
    with (base / "GT-final_test.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"])
        writer.writerows(rows)
    return root


@pytest.fixture
def picture_folder(tmp_path):
    """Two classes in ImageFolder's layout: dark and light, gray and colored files mixed."""
    root = tmp_path / "pictures"
    for split, images in (("train", 5), ("test", 2)):
        for i in range(images):
            plain(root / split / f"dark/{i}.png", (10, 10, 10), (40, 20))
            (root / split / "light").mkdir(exist_ok=True)
            Image.new("L", (16, 16), 250).save(root / split / f"light/{i}.png")
    return root
