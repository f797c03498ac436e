"""A watcher that stages attacks on each round of honest uploads and records what detectors need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.studies.replay.views import View, look
from fedml_gradcam_ae.attacks.shared.attackers import attackers_in_round, poisoned_uploads
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import AttackSettings
from fedml_gradcam_ae.contract.updates import Updates, flatten, unflatten
from fedml_gradcam_ae.contract.upload import ClientId, Upload
from fedml_gradcam_ae.heatmaps import find_target_layer, resize
from fedml_gradcam_ae.networks.batchnorm import statistics_of
from fedml_gradcam_ae.networks.evaluating import answer
from fedml_gradcam_ae.networks.images import draw_images, preserved_random_state, seeded_generator
from fedml_gradcam_ae.networks.training import train_locally

# The models that heat maps of uploads can be compared with; see `Recorder._references`.
REFERENCES = ("global", "step", "trained")


@dataclass(frozen=True)
class Staged:
    """An attack by a given fraction of the clients.

    Attributes:
        name: for tables, without the attackers.
        attack: an instance of one of the plug-in's attacks; None for no attack.
        settings: of the attack, with `attackers`; None for no attack.
    """

    name: str
    attack: Any
    settings: AttackSettings | None


@dataclass(frozen=True)
class Reference:
    """The training of the server's own model, with the clients' settings.

    Attributes:
        images: the number of test images that it is trained on.
        training: keyword arguments of `train_locally`.
    """

    images: int
    training: Mapping[str, Any]


class Recorder:
    """A detector that flags no client and appends one mapping from names to arrays to `rounds` per round.

    In each round every model is one of R rows: the references (`REFERENCES`), the honest uploads in the order of
    clients, and every poisoned upload once. The arrays of a round are:

    * `labels`: (images,);
    * `SIZE/logits`: (R, images, classes);
    * `SIZE/LAYER`: (R, images, height, width);
    * `SIZE/classes`: (R, images, classes, height, width), at the last layer;
    * `cases`: (cases, clients), the row that each client uploads in each case;
    * `malicious`: (cases, clients);
    * `samples`: (clients,), the number that each client claims;
    * `grams`: (cases, clients, clients), inner products of the updates, if `grams` is set;
    * `stored`, `measured`: (R, channels), and `layers`: (channels,), for a network with BatchNorm, see `Statistics`; on
      the images of the smallest view.

    Args:
        cases: the attacks to stage.
        views: the heat maps to compute.
        images: the number of probe images per round.
        seed: draws the images of each round.
        reference: how the server's own model is trained.
        local_data: the clients' training data, for attacks that use them.
        grams: whether to record inner products.
    """

    def __init__(
        self,
        cases: Sequence[Staged],
        views: Sequence[View],
        images: int,
        seed: int,
        reference: Reference,
        local_data: Mapping[ClientId, Iterable[Any]],
        grams: bool = True,
    ) -> None:
        self.cases, self.views, self.images, self.seed = cases, views, images, seed
        self.reference, self.local_data, self.grams = reference, local_data, grams
        self.rounds: list[dict[str, np.ndarray[Any, Any]]] = []

    def judge(self, round: Round) -> Verdict:
        """Record the round, without attack and under each attack.

        Args:
            round: of honest uploads.

        Returns:
            Equal weights for all clients.
        """
        device = next(round.network.parameters()).device
        here = [{name: tensor.to(device) for name, tensor in model.items()} for model in round.uploads]
        start = {name: tensor.to(device) for name, tensor in round.global_model.items()}
        with preserved_random_state():
            self.rounds.append(
                self._record(replace(round, uploads=here, global_model=start, local_data=self.local_data))
            )
        share = 1 / len(round.uploads)
        return Verdict(weights=[share] * len(round.uploads))

    def _record(self, round: Round) -> dict[str, np.ndarray[Any, Any]]:
        """Return the arrays of one round; see the class."""
        generator = seeded_generator(self.seed, 7, round.number)
        count = self.images + self.reference.images
        images, labels = draw_images(round.test_data, count, generator)
        like = next(round.network.parameters())
        probe, labels_of_probe = images[: self.images].to(like), labels[: self.images].to(like.device)
        own = images[self.images :].to(like), labels[self.images :].to(like.device)

        views = []
        for view in self.views:
            resized = resize(probe, view.size)
            layers = [find_target_layer(round.network, resized, name) for name in view.layers]
            views.append((View(view.size, tuple(layers)), resized))
        smallest = min((resized for _, resized in views), key=lambda images: images.shape[-1])
        found: dict[str, list[Tensor]] = {}
        numbers: dict[str, np.ndarray[Any, Any]] = {}
        rows = 0

        def add(upload: Upload) -> int:
            nonlocal rows
            for view, resized in views:
                seen = look(round.network, upload, resized, labels_of_probe, view)
                kept = {"logits": seen.logits, "classes": seen.classes, **seen.maps}
                for name, values in kept.items():
                    found.setdefault(f"{view.size}/{name}", []).append(values)
            statistics = statistics_of(round.network, round.global_model, [upload], smallest)
            if statistics is not None:
                numbers["layers"] = statistics.layers.cpu().numpy()
                found.setdefault("stored", []).append(statistics.stored[0])
                found.setdefault("measured", []).append(statistics.measured[0])
            rows += 1
            return rows - 1

        for upload in self._references(round, *own):
            add(upload)
        honest = [add(upload) for upload in round.uploads]
        clients = list(round.client_ids)
        attackers = [
            [] if case.settings is None else attackers_in_round(case.settings, round.number, clients, clients)
            for case in self.cases
        ]
        table = np.tile(np.array(honest, dtype=np.int16), (len(self.cases), 1))
        truth = np.zeros(table.shape, dtype=bool)
        grams: dict[int, Tensor] = {}
        # Attacks by the same clients follow each other, so that what these clients know is computed only once.
        for number in sorted(range(len(self.cases)), key=lambda number: attackers[number]):
            positions, uploads = attackers[number], list(round.uploads)
            settings = self.cases[number].settings
            if settings is not None and positions:
                poisoned = poisoned_uploads(self.cases[number].attack, settings, round, positions)
                first = poisoned[0]
                for position, upload in zip(positions, poisoned, strict=True):
                    same = upload is not first and _equal(upload, first)
                    table[number, position] = table[number, positions[0]] if same else add(upload)
                    truth[number, position], uploads[position] = True, upload
            if self.grams:
                grams[number] = Updates(uploads, round.global_model, round.parameters).gram
        arrays = {name: torch.stack(values).cpu().numpy() for name, values in found.items()}
        arrays |= {**numbers, "labels": labels_of_probe.cpu().numpy(), "cases": table, "malicious": truth}
        arrays["samples"] = np.array(round.samples, dtype=np.float64)
        if grams:
            arrays["grams"] = torch.stack([grams[number] for number in range(len(self.cases))]).cpu().numpy()
        return arrays

    def _references(self, round: Round, images: Tensor, labels: Tensor) -> list[Upload]:
        """Return models that no client can influence, in the order of `REFERENCES`.

        These are the global model, the global model after one gradient step as long as the median update, and a model
        trained as the clients' are.

        Args:
            round: of honest uploads.
            images: the server's training images, (images, channels, height, width).
            labels: (images,), int64.
        """
        names = round.parameters
        trained = train_locally(
            round.network,
            round.global_model,
            images,
            labels,
            generator=seeded_generator(self.seed, 8, round.number),
            **self.reference.training,
        )
        step = self._step(round, images, labels)
        length = float(Updates(round.uploads, round.global_model, names).squared_norms.sqrt().median())
        moved = flatten(round.global_model, names).double()
        moved = moved - step.double() * (length / float(step.norm()))
        stepped = {**round.global_model, **unflatten(moved.float(), round.global_model, names)}
        return [round.global_model, stepped, trained]

    def _step(self, round: Round, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the loss at the global model, (parameters,)."""
        flat = flatten(round.global_model, round.parameters).requires_grad_()
        with torch.enable_grad():
            tensors = {**round.global_model, **unflatten(flat, round.global_model, round.parameters)}
            scores = answer(round.network, tensors, images)
            (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(scores, labels), flat)
        return gradient


def _equal(one: Upload, other: Upload) -> bool:
    """Return whether two uploads are equal.

    The first tensor decides in most cases. The others are compared with a single answer, since a GPU has to finish its
    work before each answer.
    """
    first = next(iter(one))
    return torch.equal(one[first], other[first]) and bool(
        torch.stack([(one[name] == other[name]).all() for name in one]).all()
    )
