"""The images of the benchmark suite: `sets` has the data sets, `partition` distributes them over clients."""

from benchmark.data.federated import class_counts, client_parts, kept_apart, load
from benchmark.data.images import Images, read
from benchmark.data.partition import iid, partition
from benchmark.data.record import record
from benchmark.data.registry import Source, Split, register_data

__all__ = [
    "Images",
    "Source",
    "Split",
    "class_counts",
    "client_parts",
    "iid",
    "kept_apart",
    "load",
    "partition",
    "read",
    "record",
    "register_data",
]
