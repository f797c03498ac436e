"""What the GradCAM-AE paper reports, beside what a benchmark measured."""

from __future__ import annotations

from benchmark.paper.beside import Beside, beside
from benchmark.paper.claims import Claim, claims, heading, places

__all__ = ["Beside", "Claim", "beside", "claims", "heading", "places"]
