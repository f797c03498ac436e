"""Decoding of a FedML message, or of any plain value, from bytes that came over a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Budget, Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.execution import run
from fedml_gradcam_ae.hooks.cross_silo.decoding.machine import Machine
from fedml_gradcam_ae.hooks.cross_silo.decoding.names import TABLE
from fedml_gradcam_ae.hooks.cross_silo.decoding.trees import finish
from fedml_gradcam_ae.hooks.cross_silo.decoding.unfinished_message import UnfinishedMessage

Content = bytes | bytearray | memoryview
Result = TypeVar("Result")
UNFORESEEN = "not foreseen"  # Marks an unexpected error of the decoder; the fuzzer looks for these words.
# The parameters that every fedml.core.distributed.communication.message.Message has.
KEYS = ("msg_type", "sender", "receiver")


@dataclass(frozen=True)
class Envelope:
    """Decoded message, which holds plain values whose meaning is not checked yet.

    Args:
        type: the value that `Message.get_type` returns.
        sender: the value that `Message.get_sender_id` returns.
        receiver: the value that `Message.get_receiver_id` returns.
        parameters: the other parameters, by name.
    """

    type: Any
    sender: Any
    receiver: Any
    parameters: dict[Any, Any]


def decode_message(content: Content, budget: Budget) -> Envelope:
    """Decode a pickled `fedml.core.distributed.communication.message.Message`.

    Args:
        content: the pickle. The result keeps no reference to it.
        budget: the limits for decoding.

    Raises:
        Undecodable: if the bytes are not such a message within the budget; no other error is raised.
    """
    return _guarded(_message, content, budget)


def decode_value(content: Content, budget: Budget) -> Any:
    """Decode a pickled plain value, such as a state dict.

    Args:
        content: the pickle. The result keeps no reference to it.
        budget: the limits for decoding.

    Returns:
        None, bool, int, float, text, bytes, lists, tuples, dictionaries with text or small integers as keys, tensors
        (`torch.Tensor`, detached, dense, on the CPU, in memory of their own), NumPy arrays and scalars of numbers.

    Raises:
        Undecodable: if the bytes are not such a value within the budget; no other error is raised.

    Example:
        >>> import pickle
        >>> decode_value(pickle.dumps({"round": 3, "losses": [0.5, 0.25]}), Budget(bytes=10_000))
        {'round': 3, 'losses': [0.5, 0.25]}
        >>> decode_value(pickle.dumps(print), Budget(bytes=10_000))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        fedml_gradcam_ae...Undecodable: names code: a message may hold tensors, ... only, found builtins.print
    """
    return _guarded(_value, content, budget)


def _guarded(decode: Callable[[Content, Ledger], Result], content: Content, budget: Budget) -> Result:
    try:
        return decode(content, Ledger(budget))
    except Undecodable as error:
        refused = error
    except MemoryError:
        refused = Undecodable("too large", "there is not enough memory for it")
    except Exception as error:
        # Any other error is a defect of the decoder.
        refused = Undecodable("broken", f"{UNFORESEEN}, {type(error).__name__}: {error}")
    # A stored error, in a report for instance, must not keep the frames and with them the message in memory.
    refused.__context__ = refused.__cause__ = None
    raise refused.with_traceback(None)


def _run(content: Content, ledger: Ledger) -> Any:
    view = memoryview(content).cast("B")
    value, end = run(Machine(view, TABLE, ledger))
    if end != len(view):
        raise Undecodable("broken", f"{len(view) - end} bytes follow the pickle")
    return value


def _value(content: Content, ledger: Ledger) -> Any:
    return finish(_run(content, ledger), ledger)


def _message(content: Content, ledger: Ledger) -> Envelope:
    message = _run(content, ledger)
    if type(message) is not UnfinishedMessage or message.attributes is None:
        raise Undecodable("broken", "it is no FedML message")
    attributes = finish(message.attributes, ledger)
    parameters = attributes["msg_params"]
    if type(parameters) is not dict or any(key not in parameters for key in KEYS):
        raise Undecodable("broken", "a message without its parameters or without type, sender and receiver")
    return Envelope(
        type=parameters["msg_type"],
        sender=attributes["sender_id"],
        receiver=attributes["receiver_id"],
        parameters={key: value for key, value in parameters.items() if key not in KEYS},
    )
