"""The two services of `backend: MQTT_S3`, as FedML's keys name them: an MQTT broker and an S3 bucket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedml_gradcam_ae.contract.settings import SettingsError, explain

BROKER, BUCKET = "customized_training_mqtt_config", "customized_training_s3_config"  # FedML's keys.


class _Service(BaseModel):
    # FedML's platform hands out mappings with more keys than these.
    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class Broker(_Service):
    """Keys of the mapping `customized_training_mqtt_config`."""

    BROKER_HOST: str = Field(min_length=1)
    BROKER_PORT: int = Field(ge=1, le=65535)
    MQTT_USER: str | None = None
    MQTT_PWD: str | None = None
    MQTT_KEEPALIVE: int = Field(default=180, ge=1, le=65535)

    @property
    def name(self) -> str:
        """Return the host and port, for messages."""
        return f"{self.BROKER_HOST}:{self.BROKER_PORT}"


class Bucket(_Service):
    """Keys of the mapping `customized_training_s3_config`."""

    BUCKET_NAME: str = Field(min_length=1)
    CN_S3_AKI: str
    CN_S3_SAK: str
    CN_REGION_NAME: str | None = None
    CN_S3_ENDPOINT: str | None = None

    @model_validator(mode="after")
    def _check_place(self) -> Bucket:
        if not (self.CN_S3_ENDPOINT or self.CN_REGION_NAME):
            raise ValueError("CN_S3_ENDPOINT or CN_REGION_NAME must say where the bucket is")
        return self


Service = TypeVar("Service", bound=_Service)


def services(manager: Any) -> tuple[Any, Any]:
    """Return the mappings of the broker and the bucket; what the YAML lacks, FedML asks its vendor's server for.

    Args:
        manager: a FedMLCommManager.

    Raises:
        SettingsError: if the vendor's server does not answer.
    """
    try:
        broker, bucket = manager.get_training_mqtt_s3_config()
    except Exception as error:  # of requests, or of what the server answered
        raise SettingsError(
            f"backend: MQTT_S3 without comm_args.{BROKER} and {BUCKET} uses the services of FedML's vendor, which "
            f"cannot be asked: {type(error).__name__}. Name a broker and a bucket of your own."
        ) from None
    return broker, bucket


def check_services(args: Any) -> None:
    """Check the keys of FedML's args that name the broker and the bucket, as far as they are there.

    Args:
        args: FedML's args.

    Raises:
        SettingsError: if a mapping lacks a key or a value is wrong, or if clients are browsers.
    """
    for key, model in ((BROKER, Broker), (BUCKET, Bucket)):
        given = getattr(args, key, None)
        if given not in (None, ""):
            read_service(model, given, key)
    if getattr(args, "is_browser", False):
        raise SettingsError(
            "is_browser: true has models sent as JSON to browsers, which the plug-in's server does not read; leave it "
            "out, or start without the plug-in."
        )


def read_service(model: type[Service], given: Any, key: str) -> Service:
    """Return one service's settings.

    Args:
        model: `Broker` or `Bucket`.
        given: the mapping.
        key: FedML's key for it, for messages.

    Raises:
        SettingsError: if a key is missing or a value is wrong.
    """
    if not isinstance(given, Mapping):
        raise SettingsError(f"comm_args.{key} must be a mapping with {', '.join(model.model_fields)}, found {given!r}.")
    try:
        return model(**{str(name): value for name, value in given.items()})
    except ValidationError as error:
        raise SettingsError(explain(error, f"comm_args.{key}", "backend: MQTT_S3", model.model_fields)) from None
