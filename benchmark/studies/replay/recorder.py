"""A watcher that stages attacks on a round of honest uploads and keeps what detectors need of each."""

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

REFERENCES = ("global", "step", "trained")


@dataclass(frozen=True)
class Staged:
    """An attack by so many of the clients.

    Attributes:
        name: for tables, without the attackers.
        attack: an instance of ours; None for no attack.
        settings: its settings, with `attackers`.
    """

    name: str
    attack: Any
    settings: AttackSettings | None


@dataclass(frozen=True)
class Reference:
    """How the server's own model is trained: as the clients' are.

    Attributes:
        images: test images that it is trained on.
        training: `train_locally`'s.
    """

    images: int
    training: Mapping[str, Any]


class Recorder:
    """Judges nobody; `rounds` fills up with one mapping from names to arrays per round.

    Arrays of a round, R rows being the references (`REFERENCES`), the honest uploads in the order of clients and every
    poisoned upload once:

    * `labels`: (images,);
    * `SIZE/logits`: (R, images, classes); `SIZE/LAYER`: (R, images, height, width); `SIZE/classes`: of the last layer,
      (R, images, classes, height, width);
    * `cases`: (cases, clients), the row that each client uploads in each case;
    * `malicious`: (cases, clients);
    * `samples`: (clients,), those that each claims;
    * `grams`: (cases, clients, clients), inner products of the updates, if asked for;
    * `stored`, `measured`: (R, channels), `layers`: (channels,), of a network with BatchNorm, see `Statistics`; of the
      images of the smallest view.
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
        """Keep the round, as it is and under each attack."""
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
        # Attacks by the same clients one after the other: what those overhear together is computed once for all.
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
        """Models that no client can move: the global one, after one step, and after a client's training."""
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
        """The gradient of the loss at the global model, (parameters,)."""
        flat = flatten(round.global_model, round.parameters).requires_grad_()
        with torch.enable_grad():
            tensors = {**round.global_model, **unflatten(flat, round.global_model, round.parameters)}
            scores = answer(round.network, tensors, images)
            (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(scores, labels), flat)
        return gradient


def _equal(one: Upload, other: Upload) -> bool:
    """Of the first tensor and then of all at once: a GPU would have to finish its work for each tensor's answer."""
    first = next(iter(one))
    return torch.equal(one[first], other[first]) and bool(
        torch.stack([(one[name] == other[name]).all() for name in one]).all()
    )
