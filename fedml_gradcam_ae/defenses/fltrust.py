"""FLTrust: weight uploads by their cosine with the update of the server's own training.

Source: Cao, Fang, Liu and Gong, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021,
arXiv 2012.13995, Algorithm 2 with the server's learning rate 1. Where no client is trusted, the global model stays;
some implementations take the plain mean instead.
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
    """The mean of the updates, scaled to the length of the server's own update and weighted by their cosine with it.

    The model is w_g + sum_i TS_i u_i ||u_0|| / ||u_i|| / sum_i TS_i with the trust scores TS_i = max(0, cos(u_i, u_0)).
    The server's update u_0 comes from training on a few root images. These are drawn from the server's test data, the
    only data that FedML gives a server. The accuracy on the test data is therefore slightly higher than on images
    outside of any training.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.fltrust import FLTrust
        >>> images = torch.tensor([1.0, 1.0, -1.0, -1.0]).view(4, 1, 1, 1)
        >>> direction = torch.tensor([[1.0], [-1.0]])  # of honest training on these images
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"1.weight": scale * direction} for scale in (1.0, 2.0, -1.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"1.weight": torch.zeros(2, 1)},
        ...     network=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2, bias=False)),
        ...     test_data=[(images, torch.tensor([0, 0, 1, 1]))],
        ... )
        >>> training = {"local_epochs": 1, "local_learning_rate": 0.1, "local_optimizer": "sgd", "local_batch_size": 4}
        >>> verdict = FLTrust(FLTrust.Settings(root_images=4, **training)).judge(round)
        >>> [f"{score:.1f}" for score in verdict.scores], verdict.excluded  # a score is minus the cosine
        (['-1.0', '-1.0', '1.0'], [False, False, True])
        >>> verdict.model
        {'1.weight': tensor([[ 0.0500],
                [-0.0500]])}
    """

    class Settings(OutputSettings, DefenseSettings):
        """The settings of the server's training; None means the clients' value from `train_args`."""

        root_images: int = Field(
            default=100, ge=1, description="number of test images that the server trains on, drawn once per run"
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
            description="optimizer of the server's training: `sgd`, while any other name means Adam, as in FedML; "
            "null: `client_optimizer` of train_args",
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
            description="batch size of the server's training; null: `batch_size` of train_args",
            json_schema_extra={"train_args": "batch_size"},
        )
        seed: int = Field(default=0, ge=0, description="seed of the choice and the order of the root images")

    settings: Settings

    def __init__(self, settings: FLTrust.Settings | None = None) -> None:
        super().__init__(settings)
        self._training = _training_of(self.settings)
        self._root: tuple[Tensor, Tensor] | None = None

    @override
    def protects(self, clients: int) -> bool:
        """Return True: each upload is judged by the server's own update, whatever the others are."""
        return True

    @override
    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Draw the root images and run the network on them once, so that errors show before any training.

        Args:
            network: the architecture.
            test_data: the server's batches (images, labels).

        Raises:
            ValueError: if the test data hold no usable image, or the network cannot be trained on them.
        """
        images, _ = self._root_set(network, test_data)
        trained = copy.deepcopy(Classifier(network, self.settings.logits)).train()
        like = next(trained.parameters())
        batch = -(-len(images) // -(-len(images) // self._training["batch_size"]))  # the size of the first batch
        with preserved_random_state(), torch.no_grad():
            run(trained, images[:batch].to(like))

    @override
    def judge(self, round: Round) -> Verdict:
        """Train the server's update u_0 and combine the uploads; the score is minus the cosine with u_0."""
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
    """Return the keyword arguments for `train_locally`.

    Raises:
        SettingsError: if a value is neither set nor known from the clients' training; the message names it.
    """
    keys = ("epochs", "learning_rate", "optimizer", "weight_decay", "batch_size")
    values = {key: getattr(settings, f"local_{key}") for key in keys}
    if values["optimizer"] == "sgd" and values["weight_decay"] is None:
        values["weight_decay"] = 0.0  # FedML's SGD has no weight decay
    missing = [f"local_{key}" for key, value in values.items() if value is None]
    if missing:
        extras = [FLTrust.Settings.model_fields[key].json_schema_extra for key in missing]
        sources = [str(extra["train_args"]) for extra in extras if isinstance(extra, dict)]
        raise SettingsError(
            f"fltrust trains on the server and needs {', '.join(missing)}: write them in defense_params, "
            f"or {', '.join(sources)} in train_args."
        )
    return values
