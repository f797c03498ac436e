"""The same work on each upload, on a CPU each core with an upload of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import nn

from fedml_gradcam_ae.contract.upload import Upload

Result = TypeVar("Result")


def on_each_upload(
    network: nn.Module, uploads: Sequence[Upload], work: Callable[[nn.Module, Upload], Result]
) -> list[Result]:
    """`[work(network, upload) for upload in uploads]`, as many at a time as PyTorch has threads.

    A few small images leave threads that share one upload waiting for one another. Here each has its own upload, and
    the network or a copy of its modules to itself: `work` may change modes and hooks for as long as it runs. Tensors
    are shared, so it must not write to them. How many threads PyTorch has elsewhere stays as it is. On a GPU one upload
    follows another.

    Args:
        network: the architecture, on the device to compute on.
        uploads: state dicts that fit it.
        work: of the network or a copy of it, and an upload. Its first error is raised.
    """
    everywhere, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    networks = _alike(network, min(everywhere, len(uploads)))
    if len(networks) == 1:
        return [work(network, upload) for upload in uploads]
    idle: SimpleQueue[nn.Module] = SimpleQueue()
    for each in networks:
        idle.put(each)

    def one(upload: Upload) -> Result:
        own = idle.get()
        try:
            with torch.set_grad_enabled(gradients):  # each thread has a mode of its own
                return work(own, upload)
        finally:
            idle.put(own)

    try:
        with ThreadPoolExecutor(len(networks), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(one, uploads))
    finally:
        # Each thread set its own number, which is also what threads that start later begin with.
        torch.set_num_threads(everywhere)


def _alike(network: nn.Module, number: int) -> list[nn.Module]:
    """The network and copies of its modules that share its tensors; on a GPU, or if it has no copy, itself alone."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    if any(tensor.device.type != "cpu" for tensor in shared.values()):
        return [network]
    try:
        return [network, *(copy.deepcopy(network, dict(shared)) for _ in range(number - 1))]
    except (TypeError, RuntimeError):  # a module may hold what has no copy, such as a lock or a tensor with a history
        return [network]
