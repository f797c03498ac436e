"""The same work on each upload, on a CPU several uploads at a time."""

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
    """Return `[work(network, upload) for upload in uploads]`, computed for several uploads at a time.

    On a CPU there are as many uploads at a time as PyTorch has threads. On a GPU one upload follows another.

    With few small images, threads that share one upload mostly wait for one another. So each thread here works on an
    upload of its own, with the network or a copy of its modules to itself: `work` may change modes and hooks while it
    runs. The network's tensors are shared, so `work` must not write to them. The number of PyTorch's threads elsewhere
    does not change.

    Args:
        network: the architecture, on the device to compute on.
        uploads: state dicts that fit the network.
        work: a function of the network (or a copy of it) and an upload. Its first error is raised.
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
            with torch.set_grad_enabled(gradients):  # new threads do not inherit this mode
                return work(own, upload)
        finally:
            idle.put(own)

    try:
        with ThreadPoolExecutor(len(networks), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(one, uploads))
    finally:
        # Each thread set the number to 1 for itself, which is also the number that later threads start with.
        torch.set_num_threads(everywhere)


def _alike(network: nn.Module, number: int) -> list[nn.Module]:
    """Return the network and copies of its modules that share its tensors.

    On a GPU, or if the network cannot be copied, return the network alone.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    if any(tensor.device.type != "cpu" for tensor in shared.values()):
        return [network]
    try:
        return [network, *(copy.deepcopy(network, dict(shared)) for _ in range(number - 1))]
    except (TypeError, RuntimeError):  # a module may hold objects that cannot be copied: a lock, a tensor with a graph
        return [network]
