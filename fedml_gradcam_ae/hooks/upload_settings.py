"""Settings of the gate for uploads, which apply with every defense and without one."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fedml_gradcam_ae.contract.claims import LARGEST_WEIGHT
from fedml_gradcam_ae.contract.round import LARGEST_STEP
from fedml_gradcam_ae.contract.settings import Parameters
from fedml_gradcam_ae.hooks.section import check_section, read_section
from fedml_gradcam_ae.hooks.too_few import Policy

SECTION, OWNER = "upload_args", "uploads"  # The section's name in the YAML file, and its subject in messages.


class UploadSettings(Parameters):
    """Keys of the YAML section `upload_args`."""

    largest_weight: float | None = Field(
        default=LARGEST_WEIGHT,
        ge=1,
        description="upper limit of a claimed number of samples, in units of the round's median claim (the lower of "
        "the two middle ones); null: no limit",
    )
    largest_step: float | None = Field(
        default=LARGEST_STEP,
        ge=1,
        description="maximum length of a kept upload's change of any tensor, in units of the median client's (the "
        "lower of the two middle ones); null: no limit",
    )
    on_too_few: Policy = Field(
        default="keep_global",
        description="outcome of a round with fewer usable uploads than the defense's guarantee needs: the global model "
        "stays, all usable uploads are averaged, or the run stops",
    )


def read_upload_settings(args: Any) -> UploadSettings:
    """Return the settings for uploads, read from FedML's flat args.

    Raises:
        SettingsError: for a wrong kind of value or a value out of range.
    """
    return read_section(UploadSettings, args, SECTION, OWNER)


def check_upload_section(args: Any) -> None:
    """Check the section `upload_args`.

    Raises:
        SettingsError: for an unknown key, a wrong kind of value or a value out of range.
    """
    check_section(UploadSettings, args, SECTION, OWNER)
