"""The bipartition of clients by agglomerative clustering."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def smaller_cluster(distances: Tensor, linkage: Literal["complete", "average", "single"]) -> list[bool]:
    """Return for each client whether it is in the smaller of two clusters.

    Args:
        distances: (clients, clients), symmetric, 0 on the diagonal.
        linkage: how the distance of two clusters follows from those of their members.

    Returns:
        One value per client; False for a single client. Of two clusters of one size, that of the first client counts
        as the larger.

    Example:
        >>> import torch
        >>> positions = torch.tensor([1.0, 9.0, 2.0, 1.5])
        >>> smaller_cluster((positions - positions[:, None]).abs(), "complete")
        [False, True, False, False]
    """
    from sklearn.cluster import AgglomerativeClustering

    clients = len(distances)
    if clients == 1:
        return [False]
    symmetric = ((distances + distances.T) / 2).cpu().numpy()
    labels = AgglomerativeClustering(n_clusters=2, metric="precomputed", linkage=linkage).fit(symmetric).labels_
    with_first = labels == labels[0]
    kept = with_first if 2 * with_first.sum() >= clients else ~with_first
    return (~kept).tolist()  # type: ignore[no-any-return]
