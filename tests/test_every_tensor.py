"""One client of ten, or two of twenty, move one tensor of their honest upload: under no rule does it cost 0.02."""

import pytest
import torch
from every_tensor import NETWORKS, attacked, changes, trained

from fedml_gradcam_ae import registry
from fedml_gradcam_ae.hooks.defender import hand_back
from fedml_gradcam_ae.updates import weighted_mean

COSTS = 0.02
FEDERATIONS = {10: [3], 20: [3, 11]}
TRAINING = {"local_epochs": 1, "local_learning_rate": 0.1, "local_optimizer": "sgd", "local_batch_size": 10}
SETTINGS = {
    "gradcam_ae": {"epochs": 10},
    "gradcam_krum": {"probe_size": "native", "map_size": "native"},
    "fltrust": TRAINING,
    "auror": {"observe_rounds": 1},
}
RULES = {name: SETTINGS.get(name, {}) for name in registry.defenses()}


def aggregate(rule, params, round):
    """The global model after the round, as FedML makes it of what the hook hands back; and the verdict."""
    cls = registry.defenses()[rule]
    verdict = cls(cls.Settings(**params)).judge(round)
    weights, uploads = zip(*hand_back(verdict, round), strict=True)
    return weighted_mean(uploads, [weight / sum(weights) for weight in weights]), verdict
