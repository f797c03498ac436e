"""Central training before the federation, on images that no client gets.

The weights are kept in `warm-starts/` of the results folder. The file name is a hash of everything that they depend on,
so that all runs that start from the same weights share one file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from benchmark import data, models
from benchmark.atomic_file import write_json, write_whole
from benchmark.config import Run, WarmStart
from fedml_gradcam_ae import __version__
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.networks.images import preserved_random_state

# The folder of the weights inside the results folder.
FOLDER = "warm-starts"
# The number of images per batch when testing.
TEST_BATCH = 256
MOMENTUM = 0.9  # of SGD

Started = dict[str, Any]


def warm_start(run: Run, network: nn.Module, out: Path, say: Callable[[str], None]) -> Started | None:
    """Set a network's weights to warm-started ones, trained now or by an earlier run; do nothing without `warm_start`.

    Args:
        run: the settings. The seed of its warm start, or else its own, draws the first weights and the order of the
            images.
        network: as `models.create` returns it; its weights are replaced.
        out: the results folder.
        say: called with a message about the progress.

    Returns:
        What result.json holds: "weights", the file, and "accuracy" on the test images (fraction). None without
        `warm_start`.

    Raises:
        SettingsError: if fewer than two images are reserved, or the weights file cannot be read.
    """
    if run.warm_start is None:
        return None
    images = data.read(run.data)
    seed = run.seed if run.warm_start.seed is None else run.warm_start.seed
    depends_on = {
        "version": __version__,
        "data": {"name": run.data.name, "fingerprint": images.fingerprint},
        "model": run.model.model_dump(),
        "warm_start": run.warm_start.model_dump(exclude={"seed"}),
        "seed": seed,
        **({} if run.device == "cpu" else {"device": run.device}),
    }
    name = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]
    weights, facts = (out / FOLDER / f"{name}.{ending}" for ending in ("safetensors", "json"))
    if not weights.exists():  # written last: if it exists, both files are complete
        found = _train(run.model_copy(update={"seed": seed}), run.warm_start, network, images, say)
        weights.parent.mkdir(parents=True, exist_ok=True)
        write_json(facts, {**depends_on, **found})
        write_whole(weights, lambda path: safetensors.torch.save_model(network, str(path)))
    _load(network, weights)
    accuracy = json.loads(facts.read_text(encoding="utf-8"))["accuracy"]
    return {"weights": f"{weights.parent.name}/{weights.name}", "accuracy": accuracy}


def _load(network: nn.Module, weights: Path) -> None:
    try:
        safetensors.torch.load_model(network, weights)
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise SettingsError(f"{weights} cannot be read ({error}): delete it, and it is made again.") from error


def _train(
    run: Run, settings: WarmStart, network: nn.Module, images: data.Images, say: Callable[[str], None]
) -> dict[str, Any]:
    apart = data.kept_apart(run)
    if len(apart) < 2:
        raise SettingsError(
            f"warm_start.share: {settings.share} of {len(images.train)} training images is {len(apart)}: "
            "raise the share, or take more images."
        )
    inputs, labels = images.normalized(images.train[apart]), images.train_labels[apart]
    start = time.perf_counter()
    with preserved_random_state():  # the run must not depend on whether the weights existed before
        if settings.seed is not None:
            first = models.create(run, classes=len(images.classes), channels=images.train.shape[1])
            network.load_state_dict(first.state_dict())
        torch.manual_seed(run.seed)
        train(network.to(run.device), inputs, labels, settings, say)
    seconds = time.perf_counter() - start
    return {
        "images": len(apart),
        "seconds": round(seconds, 2),
        "accuracy": accuracy(network.cpu(), images.normalized(images.test), images.test_labels),
    }


def train(
    network: nn.Module, images: Tensor, labels: Tensor, settings: WarmStart, say: Callable[[str], None] = lambda _: None
) -> None:
    """Train a network: minimize the cross-entropy. Torch's random state draws the order of the images.

    Args:
        network: changed in place.
        images: (images, channels, height, width), float32, normalized.
        labels: (images,), int64.
        settings: epochs, optimizer, learning rate and batch size.
        say: called with a message at each epoch.
    """
    device = next(network.parameters()).device
    images, labels = images.to(device), labels.to(device)
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    else:
        optimizer = torch.optim.SGD(network.parameters(), lr=settings.learning_rate, momentum=MOMENTUM)
    network.train()
    for epoch in range(1, settings.epochs + 1):
        say(f"warm start, epoch {epoch} of {settings.epochs}")
        for batch in torch.split(torch.randperm(len(labels)), settings.batch_size):
            if len(batch) == 1 < settings.batch_size:
                continue  # as in data.federated.loader: BatchNorm cannot be trained on a single image
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of images that a network classifies correctly.

    Args:
        network: set to eval mode, which it keeps.
        images: (images, channels, height, width), float32, normalized.
        labels: (images,), int64.
    """
    network.eval()
    with torch.no_grad():
        right = sum(
            int(network(batch).argmax(dim=1).eq(truth).sum())
            for batch, truth in zip(torch.split(images, TEST_BATCH), torch.split(labels, TEST_BATCH), strict=True)
        )
    return right / len(labels)
