"""The section `data` of a benchmark configuration."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from benchmark.data.registry import data_sets
from fedml_gradcam_ae.contract.settings import Parameters, unknown

# The keys of each partition with their defaults. `least` belongs to partitions whose sizes are random.
PARTITIONS: dict[str, dict[str, Any]] = {
    "iid": {"unequal": None, "least": None},
    "dirichlet": {"beta": 0.5, "least": 10},
    "shards": {"shards_per_client": 2},
}
# The defaults that an iid partition gets if `unequal` is set.
UNEQUAL: dict[str, Any] = {"least": 10}
# The setting that each key belongs to, for the error message.
OWNERS = {
    "beta": "partition: dirichlet",
    "shards_per_client": "partition: shards",
    "unequal": "partition: iid",
    "least": "unequal or partition: dirichlet",
}
# The keys that say where a data set is stored; results do not depend on them.
WHERE_DATA_LIE = ("root", "download")
# The keys that decide which images are read.
WHICH_IMAGES = ("name", "size", "train_images", "test_images")


class Data(Parameters):
    """The settings of the data set and of its partition over the clients."""

    name: str = "digits"
    root: str | None = Field(
        default=None, description="the folder that holds the data set; null: data/ in the checkout"
    )
    download: bool = Field(default=False, description="whether torchvision downloads missing files")
    size: int = Field(default=32, ge=8, description="height and width in pixels that images are scaled to")
    train_images: int | None = Field(
        default=None, ge=2, description="number of training images, with the classes in their proportions; null: all"
    )
    test_images: int | None = Field(
        default=None,
        ge=1,
        description="number of test images, with the classes in their proportions, the same for every seed; null: all",
    )
    partition: Literal["iid", "dirichlet", "shards"] = "iid"
    beta: float | None = Field(
        default=None, gt=0, description="dirichlet: the smaller, the fewer clients share a class (0.5 by default)"
    )
    shards_per_client: int | None = Field(
        default=None, ge=1, description="shards: number of shards of a single label per client (2 by default)"
    )
    unequal: float | None = Field(
        default=None, gt=0, description="iid: the sizes are log-normal with this sigma; null: equal sizes"
    )
    least: int | None = Field(
        default=None, ge=2, description="dirichlet, unequal: minimum number of images of a client (10 by default)"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Fill in the defaults of the chosen partition's keys; keys of other partitions stay None."""
        if not isinstance(values, dict):
            return values
        partition = values.get("partition", "iid")
        own = PARTITIONS.get(partition, {}) if isinstance(partition, str) else {}
        if partition == "iid" and values.get("unequal") is not None:
            own = own | UNEQUAL
        return values | {key: default for key, default in own.items() if values.get(key) is None}

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check that the data set exists and that each key belongs to it or to the chosen partition."""
        known = data_sets()
        if self.name not in known:
            raise ValueError(unknown(f"data set {self.name!r}", self.name, known).removesuffix("."))
        taken = known[self.name].keys
        for key in WHERE_DATA_LIE:
            if getattr(self, key) and key not in taken:
                raise ValueError(f"{key} has no meaning for {self.name}, found {getattr(self, key)!r}: leave it out")
        own = set(PARTITIONS[self.partition])
        if self.partition == "iid" and self.unequal is None:
            own.remove("least")
        for key, owner in OWNERS.items():
            if getattr(self, key) is not None and key not in own:
                raise ValueError(
                    f"{key} belongs to {owner}, but partition is {self.partition}, "
                    f"whose keys are {', '.join(sorted(own))}: leave it out"
                )
        return self

    @property
    def images(self) -> Data:
        """Return a copy without the partition: the settings that decide which images are read."""
        return Data(**self.model_dump(include={*WHERE_DATA_LIE, *WHICH_IMAGES}))
