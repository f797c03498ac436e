"""Comparison of a benchmark with the results that the GradCAM-AE paper reports."""

from __future__ import annotations

from benchmark.paper.beside import Beside, beside
from benchmark.paper.claims import Claim, claims, heading, places

__all__ = ["Beside", "Claim", "beside", "claims", "heading", "places"]
