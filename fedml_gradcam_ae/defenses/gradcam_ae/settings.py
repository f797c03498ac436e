"""The settings of GradCAM-AE: the profile, and the probe's keys, whose defaults depend on the profile."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from fedml_gradcam_ae.defenses.gradcam_ae.autoencoder import Activation
from fedml_gradcam_ae.heatmaps import ProbeSettings

DEFAULT: Literal["robust", "paper"] = "robust"
# The defaults of the profile `paper`, where they differ from those of the fields below.
PAPER = {"probe_images": 1, "probe_size": 224, "hidden_size": 128, "epochs": 200, "learning_rate": 0.001}
# The keys that only one profile has.
OWN = {
    "paper": {
        "target_class",
        "map_method",
        "map_scaling",
        "map_size",
        "output_activation",
        "reconstruction_error",
        "alpha",
    },
    "robust": {"false_alarm", "copy_ratio", "mean_ratio", "relation_margin", "native_images", "memory", "folds"},
}


class ProfileSettings(ProbeSettings):
    """The settings of the profile and its probe images, for the defense and for an attacker that knows it."""

    profile: Literal["robust", "paper"] = Field(
        default=DEFAULT,
        description="`robust`, or `paper`, as published, whose defaults differ from those listed here: "
        + ", ".join(f"{key} {value}" for key, value in PAPER.items()),
    )
    probe_images: int = Field(default=4, ge=1, description="number of test images, drawn anew each round")
    probe_size: int | Literal["native", "auto"] = Field(  # type: ignore[assignment]  # more than the base takes
        default="auto",
        description="height and width in pixels that probe images are resized to; `native`: no resizing; `auto` "
        "(robust): doubled until heat maps have 2 x 2 positions",
    )
    native_images: int = Field(
        default=8,
        ge=1,
        description="robust: number of test images in their own size, for the statistics of BatchNorm",
    )

    @model_validator(mode="before")
    @classmethod
    def _follow_the_profile(cls, values: Any) -> Any:
        profile = values.get("profile", DEFAULT) if isinstance(values, dict) else None
        if profile not in OWN:
            return values  # the field's own check raises the error
        other = "paper" if profile == "robust" else "robust"
        known = set(cls.model_fields)
        if strangers := sorted(OWN[other] & known & set(values)):
            if "map_method" in strangers:
                raise ValueError(
                    "map_method: of profile 'paper' only. 'robust' compares signed maps of all classes, and LayerCAM's "
                    "are never negative; its thresholds were measured on Grad-CAM"
                )
            raise ValueError(
                f"{', '.join(strangers)}: of profile {other!r} only, and the profile is {profile!r}. "
                f"{profile!r} has {', '.join(sorted(OWN[profile] & known))} instead"
            )
        return {**{key: PAPER[key] for key in PAPER.keys() & known}, **values} if profile == "paper" else values

    @model_validator(mode="after")
    def _check_auto(self) -> ProfileSettings:
        if self.profile == "paper" and self.probe_size == "auto":
            raise ValueError("probe_size `auto` is of profile `robust` only: give a number of pixels, or `native`")
        return self


class GradCAMAESettings(ProfileSettings):
    """The settings of both profiles; where the paper leaves a value open, the authors' code decides."""

    hidden_size: int = Field(default=32, ge=1, description="width of the autoencoder's hidden layer")
    epochs: int = Field(default=100, ge=1, description="training steps of the autoencoder each round")
    learning_rate: float = Field(default=0.01, gt=0, description="Adam's, for the autoencoder")
    weight_decay: float = Field(default=1e-5, ge=0, description="Adam's L2 penalty, for the autoencoder")
    output_activation: Activation = Field(default="sigmoid", description="paper: the autoencoder's last activation")
    reconstruction_error: Literal["absolute", "squared"] = Field(
        default="absolute", description="paper: `absolute` as in (14); `squared` as in the authors' code"
    )
    alpha: float = Field(
        default=1.0, ge=0, description="paper: threshold = mean + alpha * standard deviation of the errors"
    )
    false_alarm: float = Field(
        default=0.0005,
        gt=0,
        le=0.5,
        description="robust: false-positive rate per round for which the thresholds of errors and of statistics or "
        "directions are computed, for normal distributions",
    )
    copy_ratio: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="robust: clients are copies if the distance between their heat maps is below this fraction of the "
        "median distance",
    )
    mean_ratio: float = Field(
        default=0.4,
        ge=0,
        lt=1,
        description="robust, with BatchNorm of 64 channels or more: clients are copies as well if the distance between "
        "the means that their layers produce is below this fraction of the median distance; 0: no comparison of means",
    )
    relation_margin: float = Field(
        default=2.2,
        ge=0,
        description="robust: a group of clients is suspected if its updates have, beyond what labels explain, this "
        "many times as much in common as independent updates have by chance; 0: updates are not compared at all, their "
        "directions and lengths neither",
    )
    memory: int = Field(
        default=6,
        ge=1,
        description="robust: number of rounds over which the scores of the directions of updates are summed",
    )
    folds: int = Field(
        default=5,
        ge=2,
        description="robust: number of folds; an autoencoder that is not trained on a fold's clients scores them",
    )
    vote_every: int = Field(default=3, ge=1, description="xi: the vote decides in every xi-th round (rounds)")
    vote_threshold: int = Field(
        default=2, ge=1, description="epsilon: number of flags with which a client is voted out (rounds)"
    )
    permanent: bool = Field(
        default=False, description="whether a client that is voted out is left out of all later rounds"
    )
    record_dir: str | None = Field(
        default=None, description="folder for the JSON lines and pictures of each round; null: none"
    )

    @model_validator(mode="after")
    def _check_vote(self) -> GradCAMAESettings:
        if self.vote_threshold > self.vote_every:
            raise ValueError(
                f"vote_threshold must be at most vote_every, since a vote counts flags over that many rounds, "
                f"found {self.vote_threshold} of {self.vote_every}"
            )
        return self
