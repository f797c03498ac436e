"""Every registered defense, with settings that suit six clients and 8 x 8 images."""

from __future__ import annotations

from typing import Any

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.settings import DefenseSettings, read_settings

TRAINING = {
    "root_images": 20,
    "local_epochs": 1,
    "local_learning_rate": 0.1,
    "local_optimizer": "sgd",
    "local_weight_decay": 0.0,
    "local_batch_size": 10,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "gradcam_ae": {"epochs": 5},
    "deepsight": {"noise_inputs": 20},
    "fltrust": TRAINING,
    "flcert": {"groups": 3},
    "auror": {"observe_rounds": 1},
}
NAMES = sorted(registry.defenses())
# Averages whole uploads by their claims and remembers them: what passes the screen shows most with it.
STRICT = "foolsgold"
# One of each kind: follows one client, looks at heat maps, answers with a model, averages by the claims.
QUICK = ("krum", "gradcam_ae", "median", "foolsgold")


def build(name: str) -> Any:
    """A defense that has seen no round yet."""
    cls = registry.defenses()[name]
    settings = read_settings(getattr(cls, "Settings", DefenseSettings), SETTINGS.get(name, {}), "defense_params", name)
    return cls(settings)
