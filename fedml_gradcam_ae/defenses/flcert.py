"""FLCert-D: clients in disjoint groups, one FedAvg model per group, and a majority vote of the models.

Source: Cao et al., "FLCert: Provably Secure Federated Learning against Poisoning Attacks", arXiv 2210.00584, section 4.
FLCert is an ensemble and no filter: no client is left out, and a wrong vote needs attackers in many groups.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.updates import Updates, weighted_mean
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.maths.order_statistics import median
from fedml_gradcam_ae.networks.evaluating import answer
from fedml_gradcam_ae.networks.outputs import Classifier, OutputSettings


@register_defense("flcert")
class FLCert(Defense):
    """An ensemble of one model per group of clients, which votes on every prediction.

    Clients start their training from their group's model (`start_for`), and tests use the vote (`predictor`). Both
    need the simulator `sp`. FedML's own global model is the coordinate-wise median of the groups' models; no client
    starts from it.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.flcert import FLCert, group_of
        >>> clients = [6, 1, 3]
        >>> [group_of(client, groups=3, seed=0) for client in clients]
        [0, 1, 2]
        >>> round = Round(
        ...     number=1,
        ...     client_ids=clients,
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 9.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> flcert = FLCert(FLCert.Settings(groups=3))
        >>> flcert.judge(round).model  # the median of the three groups' models
        {'weight': tensor([[1.1000]])}
        >>> flcert.start_for(3, round.global_model)  # client 3 alone spoils its group
        {'weight': tensor([[9.]])}
    """

    class Settings(OutputSettings, DefenseSettings):
        """The number of groups, and the seed of the hash that assigns clients to them."""

        groups: int = Field(default=5, ge=1, description="N, the number of groups of clients, with one model each")
        seed: int = Field(default=0, ge=0, description="seed of the hash that assigns a client to its group")

        @override
        def check_clients(self, clients: int) -> None:
            """Check that there is at least one client per group.

            Raises:
                ValueError: if there are more groups than clients.
            """
            if self.groups > clients:
                raise ValueError(f"groups: there are only {clients} clients a round, found {self.groups} groups")

    settings: Settings

    def __init__(self, settings: FLCert.Settings | None = None) -> None:
        super().__init__(settings)
        self._models: list[Mapping[str, Tensor]] = []

    @override
    def protects(self, clients: int) -> bool:
        """Return whether one of the groups is outvoted by the others."""
        return super().protects(clients) and self.settings.groups >= 3

    @override
    def judge(self, round: Round) -> Verdict:
        """Average each group's uploads, weighted by samples (6); a group without uploads keeps its model."""
        models = self._models or [dict(round.global_model)] * self.settings.groups
        members = [group_of(client, self.settings.groups, self.settings.seed) for client in round.client_ids]
        self._models = []
        for group, model in enumerate(models):
            there = round.bounded.only([position for position, member in enumerate(members) if member == group])
            weights = sample_weights(there.samples, [False] * len(there.samples))
            self._models.append(weighted_mean(there.uploads, weights) if weights else model)
        middle = Updates(self._models, round.global_model, round.parameters, tied=round.tied).columnwise(median)
        return Verdict(model=middle)

    @override
    def start_for(self, client: ClientId, global_model: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the model of the client's group.

        Integer tensors, such as BatchNorm's count of batches, are those of the global model in all groups.
        """
        if not self._models:
            return global_model
        model = self._models[group_of(client, self.settings.groups, self.settings.seed)]
        return {
            name: copy.deepcopy(tensor if tensor.is_floating_point() else global_model.get(name, tensor))
            for name, tensor in model.items()
        }

    @override
    def predictor(self, network: nn.Module) -> nn.Module:
        """Return the groups' majority vote as a module whose output are class scores."""
        return MajorityVote(Classifier(network, self.settings.logits), self._models) if self._models else network

    @override
    def state(self) -> dict[str, Any]:
        """Return the state to save: the groups' models."""
        return {"models": self._models}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._models = list(state["models"])


class MajorityVote(nn.Module):
    """A majority vote: each model votes for its arg-max class, and the score of a class is its number of votes.

    At a tie the smaller label wins, since the score of each class is slightly below that of the class before it.

    Args:
        network: the architecture, an image classifier.
        models: one state dict per voter; read anew for each batch of images.
    """

    def __init__(self, network: nn.Module, models: Iterable[Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.network, self.models = network, models

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores of a batch of images, (images, classes)."""
        counts = self.votes(images)
        classes = counts.shape[1]
        return counts - torch.arange(classes, dtype=torch.float32, device=counts.device) / (2 * classes)

    def votes(self, images: Tensor) -> Tensor:
        """Return the number of models that predict each class.

        Args:
            images: (images, channels, height, width).

        Returns:
            (images, classes), float32.
        """
        counts = torch.zeros(0, dtype=torch.float32)
        for position, model in enumerate(self.models):
            tensors = {name: tensor.to(images.device) for name, tensor in model.items()}
            scores = answer(self.network, tensors, images)
            counts = counts if position else torch.zeros_like(scores, dtype=torch.float32)
            counts = counts.scatter_add(1, scores.argmax(dim=1, keepdim=True), torch.ones_like(counts[:, :1]))
        return counts


def group_of(client: ClientId, groups: int, seed: int) -> int:
    """Return a client's group g(i) = hash(client id) mod N, which is the same in every process.

    Args:
        client: the client's id.
        groups: N, the number of groups.
        seed: part of what is hashed.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{client}".encode()).digest()[:8], "big") % groups


def certified_attackers(votes: Tensor) -> Tensor:
    """Return the number of attackers that cannot change the vote, whatever they upload.

    This is floor((M_y - M_z - [z < y]) / 2) for M votes, y the winner and z the runner-up. Each attacker is in one
    group and can turn one vote from y to z.

    Args:
        votes: (images, classes), at least two classes.

    Returns:
        (images,), int64, at least 0.

    Example:
        >>> certified_attackers(torch.tensor([[5.0, 0.0], [4.0, 1.0], [1.0, 4.0]]))
        tensor([2, 1, 1])
    """
    classes = votes.shape[1]
    ranked = (
        (votes - torch.arange(classes, dtype=torch.float32, device=votes.device) / (2 * classes))
        .sort(dim=1, descending=True)
        .indices
    )
    winner, second = ranked[:, 0], ranked[:, 1]
    lead = votes.gather(1, winner[:, None])[:, 0] - votes.gather(1, second[:, None])[:, 0]
    return ((lead - (second < winner).to(lead.dtype)) / 2).floor().long()
