"""Rounds made of plain vectors, for rules that know nothing of images, and hypothesis's choice of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from fedml_gradcam_ae import Round, Verdict


class Vector(nn.Module):
    """d trainable numbers in two tensors, a statistic and a counter as BatchNorm has them."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        half = size // 2
        self.first = nn.Parameter(torch.zeros(half, 1, dtype=dtype))
        self.second = nn.Parameter(torch.zeros(size - half, dtype=dtype))
        self.register_buffer("statistic", torch.zeros(2, dtype=dtype))
        self.register_buffer("batches", torch.tensor(0))


def round_of(rows: Any, samples: Any = None, **changes: Any) -> Round:
    """A round whose updates are these rows, (clients, d); the global model is not zero."""
    rows = torch.as_tensor(rows)
    network = Vector(rows.shape[1], rows.dtype)
    center = torch.linspace(-1, 1, rows.shape[1], dtype=rows.dtype)
    half = rows.shape[1] // 2

    def state(vector: Tensor, number: int) -> dict[str, Tensor]:
        return {
            "first": vector[:half, None].clone(),
            "second": vector[half:].clone(),
            "statistic": torch.full((2,), float(number), dtype=rows.dtype),
            "batches": torch.tensor(10 * number),
        }

    fields: dict[str, Any] = {
        "number": 1,
        "client_ids": list(range(len(rows))),
        "uploads": [state(center + row, number) for number, row in enumerate(rows)],
        "samples": [10.0] * len(rows) if samples is None else list(samples),
        "global_model": state(center, 0),
        "network": network,
        "test_data": [],
        "largest_step": None,  # the rules as their papers have them; tests/test_bounding.py has the bound
    }
    return Round(**{**fields, **changes})


def rows_of(round: Round) -> np.ndarray[Any, Any]:
    """The updates as numpy sees them, float64: what rounding made of the rows included."""
    center = vector_of(round.global_model)
    return np.stack([vector_of(upload) - center for upload in round.uploads])


def vector_of(model: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([model[name].double().numpy().ravel() for name in ("first", "second")])


def aggregate(round: Round, verdict: Verdict) -> np.ndarray[Any, Any]:
    """The update of the global model that follows from a verdict, (d,)."""
    if verdict.model is not None:
        return vector_of(verdict.model) - vector_of(round.global_model)
    return np.asarray(verdict.weights) @ rows_of(round)


@st.composite
def matrices(draw: Any, least: int = 3, most: int = 11) -> np.ndarray[Any, Any]:
    """(clients, d) in float32 or float64; small whole numbers make ties and duplicates likely."""
    clients, size = draw(st.integers(least, most)), draw(st.integers(2, 12))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    bound = draw(st.sampled_from([0.0, 2.0**-10, 128.0]))
    floats = st.floats(-bound, bound, width=32, allow_subnormal=False)
    elements = floats if bound else st.integers(-3, 3).map(float)
    return draw(arrays.arrays(dtype, (clients, size), elements=elements))


samples = st.lists(st.integers(1, 1000).map(float), min_size=11, max_size=11)
