"""The profile, and the probe's keys, which have other defaults in each."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from fedml_gradcam_ae.heatmaps import ProbeSettings

DEFAULT: Literal["robust", "paper"] = "robust"
# Where the paper's profile differs from the defaults.
PAPER = {"probe_images": 1, "probe_size": 224, "hidden_size": 128, "epochs": 200, "learning_rate": 0.001}
OWN = {
    "paper": {"target_class", "map_scaling", "map_size", "output_activation", "reconstruction_error", "alpha"},
    "robust": {"false_alarm", "copy_ratio", "mean_ratio", "native_images", "memory", "folds"},
}


class ProfileSettings(ProbeSettings):
    """Of the defense, and of an attacker who knows it."""

    profile: Literal["robust", "paper"] = Field(
        default=DEFAULT,
        description="`robust`, or `paper`, as published, which has other defaults than these: "
        + ", ".join(f"{key} {value}" for key, value in PAPER.items()),
    )
    probe_images: int = Field(default=4, ge=1, description="test images drawn anew each round")
    probe_size: int | Literal["native", "auto"] = Field(  # type: ignore[assignment]  # more than the base takes
        default="auto",
        description="pixels that a probe image is resized to; `native` leaves it as it is; `auto` (robust) doubles "
        "it until its heat map has 2 x 2 positions",
    )
    native_images: int = Field(
        default=8,
        ge=1,
        description="robust: test images, in their own size, that BatchNorm's statistics are measured on, or, without "
        "BatchNorm, the direction of change",
    )

    @model_validator(mode="before")
    @classmethod
    def _follow_the_profile(cls, values: Any) -> Any:
        profile = values.get("profile", DEFAULT) if isinstance(values, dict) else None
        if profile not in OWN:
            return values  # the field's own check answers
        other = "paper" if profile == "robust" else "robust"
        known = set(cls.model_fields)
        if strangers := sorted(OWN[other] & known & set(values)):
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
