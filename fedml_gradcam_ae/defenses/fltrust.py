"""FLTrust: uploads count as far as they point where the server's own training points.

Source: Cao, Fang, Liu and Gong, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021,
arXiv 2012.13995, Algorithm 2 with the server's learning rate 1. Where nobody is trusted the model stays; some
implementations take the plain mean then.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from time import perf_counter
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings, SettingsError
from fedml_gradcam_ae.contract.updates import flatten
from fedml_gradcam_ae.maths.cosine import cosines
from fedml_gradcam_ae.networks.images import draw_images, preserved_random_state, seeded_generator
from fedml_gradcam_ae.networks.outputs import Classifier, OutputSettings, count_classes, run
from fedml_gradcam_ae.networks.training import train_locally


@register_defense("fltrust")
class FLTrust(Defense):
    """Weigh uploads by their cosine with an update that the server trains itself, all scaled to its length.

    w_g + sum_i TS_i u_i ||u_0|| / ||u_i|| / sum_i TS_i, TS_i = max(0, cos(u_i, u_0)), where u_0 comes from training
    on a few root images. These are taken from the server's test data, which FedML gives a server and nothing else:
    the accuracy that is measured on those is then a little better than on images that nobody trained on.
    """

    class Settings(OutputSettings, DefenseSettings):
        """What is None is the clients' own, from `train_args`."""

        root_images: int = Field(
            default=100, ge=1, description="test images that the server trains on, drawn once per run"
        )
        local_epochs: int | None = Field(
            default=None,
            ge=1,
            description="epochs of the server's training; null: `epochs` of train_args",
            json_schema_extra={"train_args": "epochs"},
        )
        local_learning_rate: float | None = Field(
            default=None,
            gt=0,
            description="learning rate of the server's training; null: `learning_rate` of train_args",
            json_schema_extra={"train_args": "learning_rate"},
        )
        local_optimizer: str | None = Field(
            default=None,
            description="`sgd`, or anything else for Adam, as in FedML; null: `client_optimizer` of train_args",
            json_schema_extra={"train_args": "client_optimizer"},
        )
        local_weight_decay: float | None = Field(
            default=None,
            ge=0,
            description="Adam's L2 penalty in the server's training; null: `weight_decay` of train_args",
            json_schema_extra={"train_args": "weight_decay"},
        )
        local_batch_size: int | None = Field(
            default=None,
            ge=1,
            description="largest batch of the server's training; null: `batch_size` of train_args",
            json_schema_extra={"train_args": "batch_size"},
        )
        seed: int = Field(default=0, ge=0, description="draws the root images and shuffles them")

    settings: Settings

    def __init__(self, settings: FLTrust.Settings) -> None:
        super().__init__(settings)
        self._training = _training_of(settings)
        self._root: tuple[Tensor, Tensor] | None = None

    @override
    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Draw the root images and run the network on them once, so that a mistake shows before any training.

        Raises:
            ValueError: if the test data hold no image that can be used, or the network cannot be trained on them.
        """
        images, _ = self._root_set(network, test_data)
        trained = copy.deepcopy(Classifier(network, self.settings.logits)).train()
        like = next(trained.parameters())
        batch = -(-len(images) // -(-len(images) // self._training["batch_size"]))  # as large as the first one
        with preserved_random_state(), torch.no_grad():
            run(trained, images[:batch].to(like))

    @override
    def judge(self, round: Round) -> Verdict:
        """Train, compare and combine for one round."""
        start = perf_counter()
        images, labels = self._root_set(round.network, round.test_data)
        trained = train_locally(
            Classifier(round.network, self.settings.logits),
            round.global_model,
            images,
            labels,
            generator=seeded_generator(self.settings.seed, 1, round.number),
            **self._training,
        )
        own = {
            name: trained[name].to(round.global_model[name].device).double() - round.global_model[name].double()
            for name in round.parameters
        }
        length = float(flatten(own, round.parameters).norm())
        seconds = {"training": perf_counter() - start}

        norms = round.updates.squared_norms.sqrt()
        alike = cosines(round.updates.dot(own), norms, length)
        trust = alike.clamp(min=0)
        distrusted = (trust == 0).tolist()
        answer: dict[str, Any] = {"weights": [0.0] * len(distrusted)}
        if not all(distrusted):
            shares = trust / trust.sum()
            factors = torch.where(trust > 0, length / norms, torch.zeros_like(norms))
            answer = {"model": round.bounded.updates.combine(shares * factors, shares)}
        return Verdict(
            **answer,
            flagged=distrusted,
            excluded=distrusted,
            scores=(-alike).tolist(),
            threshold=0.0,
            seconds=seconds,
            reasons={
                client: "its update has no direction: it is zero, or too long for float64"
                for client, cosine in zip(round.client_ids, alike.tolist(), strict=True)
                if cosine == 0
            },
        )

    def _root_set(self, network: nn.Module, test_data: Iterable[Any]) -> tuple[Tensor, Tensor]:
        if self._root is None:
            classifier, like = Classifier(network, self.settings.logits), next(network.parameters())
            try:
                image, _ = draw_images(test_data, 1, seeded_generator(self.settings.seed, 0))
                classes = count_classes(classifier, image.to(like))
                generator = seeded_generator(self.settings.seed, 0)
                self._root = draw_images(test_data, self.settings.root_images, generator, classes=classes)
            except ValueError as error:
                raise ValueError(f"FLTrust's root images are drawn from the server's test data. {error}") from None
        return self._root


def _training_of(settings: FLTrust.Settings) -> dict[str, Any]:
    """What `train_locally` has to be told.

    Raises:
        SettingsError: naming what is neither given nor known from the clients' training.
    """
    keys = ("epochs", "learning_rate", "optimizer", "weight_decay", "batch_size")
    values = {key: getattr(settings, f"local_{key}") for key in keys}
    if values["optimizer"] == "sgd" and values["weight_decay"] is None:
        values["weight_decay"] = 0.0  # FedML's SGD has none
    missing = [f"local_{key}" for key, value in values.items() if value is None]
    if missing:
        extras = [FLTrust.Settings.model_fields[key].json_schema_extra for key in missing]
        sources = [str(extra["train_args"]) for extra in extras if isinstance(extra, dict)]
        raise SettingsError(
            f"fltrust trains on the server and needs {', '.join(missing)}: write them in defense_params, "
            f"or {', '.join(sources)} in train_args."
        )
    return values
