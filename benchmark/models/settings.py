"""The section `model` of a benchmark configuration."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from benchmark.models.registry import networks
from fedml_gradcam_ae.contract.settings import Parameters, unknown


class Model(Parameters):
    """The settings of the network."""

    name: str = "small_cnn"
    weights: str | None = Field(
        default=None, description="pretrained weights, such as imagenet; null: random weights by the run's seed"
    )
    channels_last: bool = Field(
        default=False, description="channels innermost in memory: faster on most CPUs; the default is the network's"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Fill in the network's own default of `channels_last`."""
        if not isinstance(values, dict) or not isinstance(values.get("name", "small_cnn"), str):
            return values
        entry = networks().get(values.get("name", "small_cnn"))
        return values if entry is None else {"channels_last": entry.channels_last, **values}

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check that the network exists and has the pretrained weights that are named."""
        known = networks()
        if self.name not in known:
            raise ValueError(unknown(f"model {self.name!r}", self.name, known).removesuffix("."))
        if self.weights is not None and self.weights not in known[self.name].weights:
            having = [f"{name} ({', '.join(entry.weights)})" for name, entry in sorted(known.items()) if entry.weights]
            raise ValueError(
                f"{self.name} has no pretrained weights {self.weights!r}. Networks that have some: {', '.join(having)}"
            )
        return self
