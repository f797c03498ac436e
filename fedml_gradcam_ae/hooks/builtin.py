"""FedML 0.9.6's own defense and attack types: the keys that they read, and their known defects.

FedML reads these keys from one flat namespace and hardly checks them. They are declared here, so that a mistake is
reported at the start of a run.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from fedml_gradcam_ae.contract.settings import Parameters

# Selects FedML's own type where the plug-in has one of the same name: `fedml:krum` is FedML's Krum.
PREFIX = "fedml:"


class Keys(Parameters):
    """Keys of one FedML type; keys of other types are ignored, since FedML's examples list them side by side."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class Krum(Keys):
    byzantine_client_num: int = Field(ge=0)
    krum_param_m: int = Field(default=1, ge=1)


class NormDiffClipping(Keys):
    norm_bound: float = Field(gt=0)


class RobustLearningRate(Keys):
    robust_threshold: float = Field(ge=0)


class Slsgd(Keys):
    trim_param_b: int = Field(ge=0)
    alpha: float = Field(ge=0, le=1)
    option_type: Literal[1, 2]


class GeoMedian(Keys):
    byzantine_client_num: int = Field(ge=0)
    batch_num: int = Field(ge=1)


class WeakDp(Keys):
    stddev: float = Field(ge=0)


class CClip(Keys):
    bucket_size: int = Field(ge=1)
    tau: float = Field(default=10, gt=0)


class ThreeSigmaFoolsGold(Keys):
    bucketing_batch_size: int = Field(default=1, ge=1)
    pretraining_round_num: int = Field(default=2, ge=0)
    to_keep_higher_scores: bool = True


class ThreeSigmaGeo(Keys):
    pretraining_round_num: int = Field(default=2, ge=0)
    to_keep_higher_scores: bool = False


class Crfl(Keys):
    clip_threshold: float | None = Field(default=None, gt=0)
    sigma: float = Field(default=0.01, ge=0)


class TrimmedMean(Keys):
    beta: float = Field(ge=0, lt=0.5)


class AnomalyDetection(Keys):
    cosine_similarity_bound: float = Field(ge=-1, le=1)


# FedML's defense types with their keys.
DEFENSES: dict[str, type[Keys]] = {
    "norm_diff_clipping": NormDiffClipping,
    "robust_learning_rate": RobustLearningRate,
    "krum": Krum,
    "multikrum": Krum,
    "slsgd": Slsgd,
    "geo_median": GeoMedian,
    "weak_dp": WeakDp,
    "cclip": CClip,
    "wise_median": Keys,
    "rfa": Keys,
    "foolsgold": Keys,
    "3sigma_foolsgold": ThreeSigmaFoolsGold,
    "3sigma_geo": ThreeSigmaGeo,
    "3sigma": Keys,
    "crfl": Crfl,
    "trimmed_mean": TrimmedMean,
    "anomaly_detection": AnomalyDetection,
}

# Known defects of FedML's own types. The start of a run warns of those of defenses.
DEFECTS = {
    "weak_dp": "FedML accepts it and never calls it: the run is undefended",
    "robust_learning_rate": "FedML accepts it and never calls it: the run is undefended",
    "trimmed_mean": "FedML drops whole clients by their sample count, not coordinates by their value",
    "slsgd": "FedML drops whole clients by their sample count, not coordinates by their value",
    "rfa": "with equal sample counts FedML answers with the first client's model",
    "geo_median": "with equal sample counts FedML answers with the first group's model",
    "wise_median": "FedML stops with an error on models with BatchNorm",
    "3sigma_geo": "FedML stops with an AttributeError",
    "byzantine": "FedML draws new attackers every round and only prints who they are",
    "label_flipping": "FedML gives numpy's global random state a new seed for every client",
    "model_replacement": "attack_training_rounds fails unless poisoned_training_round is a list, too",
}


class Byzantine(Keys):
    byzantine_client_num: int = Field(ge=1)
    attack_mode: Literal["random", "zero", "flip"]


class LabelFlipping(Keys):
    original_class_list: list[int]
    target_class_list: list[int]
    ratio_of_poisoned_client: float = Field(ge=0, le=1)
    poison_start_round_id: int = Field(default=0, ge=0)
    poison_end_round_id: int | None = Field(default=None, ge=0)


class ModelReplacement(Keys):
    malicious_client_id: int | None = Field(default=None, ge=0)
    attack_training_rounds: list[int] | None = None
    poisoned_training_round: list[int] | None = None
    scale_factor_S: float | None = Field(default=None, gt=0)


class Dlg(Keys):
    attack_round_num: int = Field(ge=1)
    protected_layers: list[int] | None = None
    attack_iteration_idxs: list[int] | None = None


# FedML's attack types with their keys.
ATTACKS: dict[str, type[Keys]] = {
    "byzantine": Byzantine,
    "label_flipping": LabelFlipping,
    "model_replacement": ModelReplacement,
    "dlg": Dlg,
}
