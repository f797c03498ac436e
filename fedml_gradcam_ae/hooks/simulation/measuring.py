"""Metrics of FedML's loops that test the global model and keep the result to themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fedml


@contextmanager
def measuring(client: Any, args: Any, round_idx: int) -> Iterator[None]:
    """Return a context manager that logs, as FedML's FedAvg does, what is tested in it.

    Args:
        client: FedML's client that tests for all clients.
        args: FedML's args. They get FedML's key `ci`, which these loops cannot do without, if it is missing.
        round_idx: the round, counted from 0.
    """
    if not hasattr(args, "ci"):
        args.ci = 0
    found: dict[str, list[dict[str, float]]] = {"Train": [], "Test": []}
    stock = client.local_test

    def local_test(*given: Any) -> dict[str, float]:
        metrics: dict[str, float] = stock(*given)
        found["Test" if given[-1] else "Train"].append(metrics)
        return metrics

    client.local_test = local_test
    try:
        yield
    finally:
        del client.local_test
    for name, metrics in found.items():
        if total := sum(one["test_total"] for one in metrics):
            for key, of in (("Acc", "test_correct"), ("Loss", "test_loss")):
                fedml.mlops.log({f"{name}/{key}": sum(one[of] for one in metrics) / total, "round": round_idx})
