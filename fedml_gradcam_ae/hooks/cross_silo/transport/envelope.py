"""Schemas of the messages that come from outside, one for each type of message."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

import numpy
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fedml_gradcam_ae.contract.shown import printable, shown
from fedml_gradcam_ae.hooks.cross_silo.decoding import Envelope
from fedml_gradcam_ae.hooks.cross_silo.refused import Refused
from fedml_gradcam_ae.hooks.cross_silo.transport.addresses import is_host

# Types and parameter names of messages, from fedml.cross_silo.server.message_define.
INIT, SYNC, UPLOAD, STATUS, CHECK, FINISH = 1, 2, 3, 5, 6, 7
MODEL_PARAMS, NUM_SAMPLES, CLIENT_INDEX = "model_params", "num_samples", "client_idx"
LARGEST_ID = 10**6  # Largest id of a process.
MOST_EXTRAS = 32  # Maximum number of parameters beyond the schema that are passed on.


class Misfit(ValueError):  # noqa: N818
    """Error for a message that does not fit its schema.

    Args:
        kind: the part that does not fit, in one word.
        reason: what was expected and found.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def _from_digits(value: Any) -> Any:
    """Return a text of at most 7 digits as an int, since ids in FedML's YAML may be text; else the value itself."""
    return int(value) if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 7 else value


def _check_host(value: str) -> str:
    if not is_host(value):
        raise ValueError("expected an address or the name of a machine")
    return value


Id = Annotated[int, BeforeValidator(_from_digits), Field(ge=0, le=LARGEST_ID)]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, hide_input_in_errors=True)


class Header(_Schema):
    """Type, sender and receiver, which every message has."""

    type: int = Field(ge=1, le=1000)
    sender: Id
    receiver: Id


RoundNumber = Annotated[int, Field(ge=1, lt=2**31)]


class _Parameters(_Schema):
    sender_rank: Id | None = None
    sender_ip: Annotated[str, Field(max_length=255), AfterValidator(_check_host)] | None = None
    sender_port: Annotated[int, BeforeValidator(_from_digits), Field(ge=1, le=65535)] | None = None


class Status(_Parameters):
    """Parameters of a client's report of its status, such as that it has started or ended."""

    client_status: Literal[
        "ONLINE", "OFFLINE", "IDLE", "UPGRADING", "INITIALIZING", "TRAINING", "STOPPING", "KILLED", "FAILED", "FINISHED"
    ]
    client_os: str | None = Field(default=None, max_length=64)
    client_process: str | None = Field(default=None, min_length=1, max_length=64)


class Upload(_Parameters):
    """Parameters of an upload; the gate checks the model in it later."""

    model_params: Any = None
    num_samples: Any = None
    round_number: RoundNumber | None = None


class Model(_Parameters):
    """Parameters of the server's message with a model: one to train from, or the final one."""

    model_params: Any
    client_idx: Id
    client_os: str | None = Field(default=None, max_length=64)
    round_number: RoundNumber | None = None
    rounds: RoundNumber | None = None


class Call(_Parameters):
    """Parameters of the server's question for a client's status, or of its order to end."""

    client_idx: Id | None = None


# The schema of the parameters of each type of message.
SCHEMAS: dict[int, type[_Parameters]] = {
    STATUS: Status,
    UPLOAD: Upload,
    INIT: Model,
    SYNC: Model,
    CHECK: Call,
    FINISH: Call,
}


def check(envelope: Envelope, types: Collection[int], receivers: Collection[int]) -> tuple[Header, dict[str, Any]]:
    """Check a decoded message against its schema.

    Args:
        envelope: the message.
        types: the types of messages that have a handler in this process.
        receivers: the ids of this process.

    Returns:
        The header with type, sender and receiver, and the parameters by name. Parameters beyond the schema are kept
        only if they are plain numbers or short texts. If the number of samples of an upload is not a plain number,
        the model is replaced by `Refused`.

    Raises:
        Misfit: if the message does not fit its schema.
    """
    try:
        header = Header(type=envelope.type, sender=envelope.sender, receiver=envelope.receiver)
    except ValidationError as error:
        raise _misfit(error, {key: getattr(envelope, key) for key in Header.model_fields}) from None
    schema = SCHEMAS.get(header.type)
    if schema is None or header.type not in types:
        raise Misfit("type", f"a message of type {header.type} is not taken here")
    if header.receiver not in receivers:
        raise Misfit("receiver", f"it is for receiver {header.receiver}")
    given = {key: value for key, value in envelope.parameters.items() if type(key) is str}
    try:
        known = schema(**{key: value for key, value in given.items() if key in schema.model_fields})
    except ValidationError as error:
        raise _misfit(error, given) from None
    parameters = {key: getattr(known, key) for key in known.model_fields_set}
    parameters |= _extras(given, {*schema.model_fields, "msg_type", "sender", "receiver"})
    if header.type == UPLOAD:
        try:
            parameters[NUM_SAMPLES] = plain_number(parameters.get(NUM_SAMPLES))
        except ValueError as error:
            parameters |= {NUM_SAMPLES: 1, MODEL_PARAMS: Refused(str(error))}
        parameters.setdefault(MODEL_PARAMS, Refused("it holds no model"))
    elif CLIENT_INDEX in parameters:
        parameters[CLIENT_INDEX] = str(parameters[CLIENT_INDEX])  # as FedML sends it
    return header, parameters


def plain_number(value: Any) -> int | float:
    """Return a claimed number of samples as a Python number, which may be negative, NaN or infinite.

    Args:
        value: the claim, which may be an arbitrary decoded value.

    Raises:
        ValueError: if the claim is not an int of at most 64 bits, a float, or one of numpy's scalars of these.

    Example:
        >>> plain_number(numpy.float32(2.5)), plain_number(-3)
        (2.5, -3)
    """
    if isinstance(value, numpy.integer | numpy.floating):
        value = value.item()
    if type(value) is float or (type(value) is int and value.bit_length() <= 64):
        return value
    raise ValueError(f"its number of samples must be a plain number, found {shown(value)}")


def _extras(given: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the parameters beyond the schema to pass on: plain numbers and short texts."""
    more = {key: value for key, value in given.items() if key not in known and len(key) <= 64 and _is_plain(value)}
    return dict(list(more.items())[:MOST_EXTRAS])


def _is_plain(value: Any) -> bool:
    if type(value) is int:
        return value.bit_length() <= 64
    return type(value) in (bool, float, type(None)) or (type(value) is str and len(value) <= 255)


def _misfit(error: ValidationError, given: Mapping[str, Any]) -> Misfit:
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    key = str(problem["loc"][0])
    words = problem["msg"].removeprefix("Input should be ")
    return Misfit(key, printable(f"{key}: expected {words}, found {shown(given.get(key))}"))
