"""Seconds to decode a client's message, beside `pickle.loads` on the same bytes.

    python -m pytest benchmark/speed/bench_decoding.py --benchmark-columns=min,median,max,rounds

The timed region is from the bytes that gRPC delivers to the message with all tensors in memory of their own. A message
with ResNet-18 has 47 MB in 122 tensors, one with MobileNetV3-Large 22 MB in 312. Repetitions of the two decoders
alternate. Compare medians within one run only: machines differ, and so does their load.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import pytest
import torchvision
from fedml.core.distributed.communication.message import Message
from pytest_benchmark.fixture import BenchmarkFixture

from fedml_gradcam_ae.hooks.cross_silo.decoding import Budget, decode_message

# torchvision's names of the networks whose messages are decoded.
NETWORKS = ("resnet18", "mobilenet_v3_large")
REPETITIONS = 15


def upload(network: str) -> bytes:
    """Return the bytes of a client's message after training.

    Args:
        network: torchvision's name.
    """
    message = Message(3, 1, 0)
    message.add_params("model_params", getattr(torchvision.models, network)().state_dict())
    message.add_params("num_samples", 600)
    return pickle.dumps(message)


def seconds(decode: Callable[[bytes], Any], content: bytes) -> float:
    """Return the time of one decoding (s); freeing its result is not timed.

    Args:
        decode: the decoder.
        content: the message.
    """
    start = perf_counter()
    decoded = decode(content)
    end = perf_counter()
    del decoded
    return end - start


@pytest.mark.parametrize("network", NETWORKS)
def test_seconds_per_message(benchmark: BenchmarkFixture, network: str) -> None:
    """Time the decoding of one upload; the time of `pickle.loads` and the ratio of the medians are in extra_info."""
    content = upload(network)
    budget = Budget(bytes=2 * len(content))

    def decode(content: bytes) -> Any:
        return decode_message(content, budget)

    # After one warm-up the two alternate, so that the machine's load affects both alike.
    times: dict[str, list[float]] = {"ours": [], "pickle": []}
    for _ in range(REPETITIONS + 1):
        times["ours"].append(seconds(decode, content))
        times["pickle"].append(seconds(pickle.loads, content))
    ours, theirs = (median(times[name][1:]) for name in ("ours", "pickle"))
    benchmark.group = network
    benchmark.extra_info |= {"bytes": len(content), "pickle": theirs, "ours": ours, "ratio": ours / theirs}
    benchmark.pedantic(decode, args=(content,), rounds=REPETITIONS)  # type: ignore[no-untyped-call]
    print(f"\n{network}: {1000 * ours:.1f} ms, pickle.loads {1000 * theirs:.1f} ms, ratio {ours / theirs:.2f}")
