"""FLCert-D: clients in disjoint groups, one FedAvg model per group, and a majority vote of the models.

Source: Cao et al., "FLCert: Provably Secure Federated Learning against Poisoning Attacks", arXiv 2210.00584, section 4.
An ensemble and no filter: it leaves nobody out, and a wrong vote needs attackers in many groups.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
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
from fedml_gradcam_ae.defenses.median import median
from fedml_gradcam_ae.networks.evaluating import answer
from fedml_gradcam_ae.networks.outputs import Classifier, OutputSettings


@register_defense("flcert")
class FLCert(Defense):
    """Each client trains its group's model, and the groups' models vote on every prediction.

    Clients start from their group's model (`start_for`) and tests ask the vote (`predictor`), which both need the
    simulator `sp`. FedML's own global model is the groups' coordinate-wise median; nobody starts from it.
    """

    class Settings(OutputSettings, DefenseSettings):
        """The number of groups, and how clients fall into them."""

        groups: int = Field(default=5, ge=1, description="N, how many groups of clients there are, one model each")
        seed: int = Field(default=0, ge=0, description="goes into the hash that puts a client into its group")

        @override
        def check_clients(self, clients: int) -> None:
            """At least one client for each group."""
            if self.groups > clients:
                raise ValueError(f"groups: there are only {clients} clients a round, found {self.groups} groups")

    settings: Settings

    def __init__(self, settings: FLCert.Settings) -> None:
        super().__init__(settings)
        self._models: list[Mapping[str, Tensor]] = []

    @override
    def judge(self, round: Round) -> Verdict:
        """Average each group's uploads, weighted by samples (6); a group without any keeps its model."""
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
        """The model of the client's group; batches are counted from the global model's count in all groups."""
        if not self._models:
            return global_model
        model = self._models[group_of(client, self.settings.groups, self.settings.seed)]
        return {
            name: copy.deepcopy(tensor if tensor.is_floating_point() else global_model.get(name, tensor))
            for name, tensor in model.items()
        }

    @override
    def predictor(self, network: nn.Module) -> nn.Module:
        """The vote of the groups' models, as a module that answers with scores."""
        return MajorityVote(Classifier(network, self.settings.logits), self._models) if self._models else network

    @override
    def state(self) -> dict[str, Any]:
        """The groups' models, which must outlive the process."""
        return {"models": self._models}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._models = list(state["models"])


class MajorityVote(nn.Module):
    """Each model votes for its arg-max class; the score of a class is its number of votes.

    Among equal numbers the smaller label wins: each class is a little lower than the one before it.
    """

    def __init__(self, network: nn.Module, models: list[Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.network, self.models = network, models

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Scores of shape (images, classes)."""
        counts = self.votes(images)
        classes = counts.shape[1]
        return counts - torch.arange(classes, dtype=torch.float32, device=counts.device) / (2 * classes)

    def votes(self, images: Tensor) -> Tensor:
        """How many models answer with each class, (images, classes)."""
        counts = torch.zeros(0, dtype=torch.float32)
        for position, model in enumerate(self.models):
            tensors = {name: tensor.to(images.device) for name, tensor in model.items()}
            scores = answer(self.network, tensors, images)
            counts = counts if position else torch.zeros_like(scores, dtype=torch.float32)
            counts = counts.scatter_add(1, scores.argmax(dim=1, keepdim=True), torch.ones_like(counts[:, :1]))
        return counts


def group_of(client: ClientId, groups: int, seed: int) -> int:
    """g(i) = hash(client id) mod N, the same in every process."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{client}".encode()).digest()[:8], "big") % groups


def certified_attackers(votes: Tensor) -> Tensor:
    """How many attackers cannot change the vote, whatever they upload: floor((M_y - M_z - [z < y]) / 2).

    y is the winner and z the runner-up; each attacker sits in one group and can turn one vote from y to z.

    Args:
        votes: (images, classes), at least two classes.

    Returns:
        (images,), at least 0.
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
