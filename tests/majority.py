"""What HDBSCAN with a minimum of more than half of the points finds, by single linkage."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform


def last_majority(distances: np.ndarray) -> set[int]:
    """HDBSCAN with a minimum of more than half is this: cut single linkage lower and lower.

    The last component of more than half of the points, before it breaks into smaller ones, is the cluster.
    """
    clients = len(distances)
    tree = linkage(squareform(distances, checks=False), "single")
    kept = set(range(clients))
    for height in sorted(set(tree[:, 2]), reverse=True):
        labels = fcluster(tree, height, "distance")
        largest = max(set(labels), key=lambda label: (labels == label).sum())
        members = set(np.flatnonzero(labels == largest).tolist())
        if len(members) < clients // 2 + 1:
            break
        kept = members
    return kept
