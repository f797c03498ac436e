"""Pickles that honest clients send, and whether what is decoded is what pickle reads."""

from __future__ import annotations

import pickle
from collections import OrderedDict

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    """Tied weights, statistics, a frozen and an empty parameter, a view, and one in channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(3)
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
        self.other.weight = self.one.weight
        self.coarse = nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16), requires_grad=False)
        self.register_buffer("nothing", torch.empty(0, 4))
        self.register_buffer("view", torch.arange(12.0).reshape(3, 4).t()[1:3])
        self.register_buffer("wide", torch.ones(1).expand(3, 2))
        self.register_buffer("mask", torch.tensor([True, False]))


def values() -> dict[str, object]:
    """What honest clients send, and more."""
    torch.manual_seed(0)
    net = Net()
    return {
        "a state dict": net.state_dict(),
        "parameters": OrderedDict(net.named_parameters()),
        "numbers": {"round": 3, "loss": 0.5, "big": 2**63, "negative": -(2**40), "none": None, "yes": True},
        "containers": [(), [], {}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[["deep"]]], {1: {-5: "small ints"}}],
        "texts": ["", "äöü", "模型", "😀", "a" * 300, "é" * 300],
        "bytes": [b"", b"\x00\xff", b"x" * 300, bytearray(b"mutable"), bytearray()],
        "arrays": [
            np.arange(6, dtype=np.float32).reshape(2, 3),
            np.asfortranarray(np.arange(6).reshape(2, 3)),
            np.arange(6, dtype=np.int16)[::2],
            np.array(3.5),
            np.empty((0, 3)),
            np.array([True, False]),
            np.array([1 + 2j], dtype=np.complex64),
        ],
        "scalars": [np.float64(2.5), np.float32(1), np.int64(20), np.bool_(True), np.complex128(1j), np.uint8(200)],
        "dtypes": [torch.ones(2, 3).to(kind) for kind in TENSOR_DTYPES],
        "tensors": [torch.tensor(3.0), torch.empty(0), torch.arange(6).reshape(2, 3).t(), torch.arange(9)[2:7:2]],
        "a size": torch.Size([2, 3]),
        "shared": (lambda one: [one, one, {"again": one}])([torch.ones(2), "text"]),
    }


TENSOR_DTYPES = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64, torch.bool, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16,
]  # fmt: skip


def real_messages() -> list[bytes]:
    """Messages of FedML as its clients pickle them, and the same values alone, in every protocol."""
    from fedml.core.distributed.communication.message import Message

    made = []
    for protocol in (2, 3, 4, 5):
        for value in values().values():
            made.append(pickle.dumps(value, protocol))
        upload = Message(3, 1, 0)
        upload.add_params("model_params", values()["a state dict"])
        upload.add_params("num_samples", np.int64(20))
        status = Message(5, 2, 0)
        status.add_params("client_status", "ONLINE")
        status.add_params("client_os", "linux")
        made += [pickle.dumps(upload, protocol), pickle.dumps(status, protocol)]
    return made


def equal(one: object, other: object) -> bool:
    """Whether two values are the same, types and layouts of tensors included."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        flat = [value.detach().contiguous().reshape(-1).view(torch.uint8) for value in (one, other)]
        return torch.equal(*flat) and (one.is_contiguous() == other.is_contiguous() or not dense(other))
    if isinstance(one, bytes) and isinstance(other, bytearray):
        return one == other
    if isinstance(other, torch.Size):
        other = tuple(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other or (one != one and other != other)


def dense(value: torch.Tensor) -> bool:
    """Whether a tensor fills its memory."""
    return value._is_view() is False and value.untyped_storage().nbytes() == value.numel() * value.element_size()
