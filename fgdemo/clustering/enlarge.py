"""Clusters of a least size."""

from __future__ import annotations

import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch
from fgdemo.clustering.lloyd import column_blocks, columns_of, gaps, means, sizes_of


def enlarge(batch: Batch, labels: Tensor, ks: tuple[int, ...], at_least: int) -> Tensor:
    """Give every cluster `at_least` rows, one row at a time, each the one that raises the inertia least.

    Rows come from clusters that can spare one; centroids stay where they are meanwhile. (An optimal assignment under
    a least size is a minimum-cost flow: Bradley, Bennett and Demiriz, "Constrained K-Means Clustering", 2000.)

    Args:
        labels: (C, M, n) int64, -1 in padded rows and inadmissible pairs. An admissible class has at least
            K * at_least rows.

    Returns:
        The new labels; unchanged where no cluster is too small.
    """
    sizes = sizes_of(columns_of(labels, ks, 1), sum(ks))
    result = labels.clone()
    for position, (k, _, columns) in enumerate(column_blocks(ks, 1)):
        # a single cluster has all the rows there are
        small = (sizes[:, columns] < at_least).any(1) & (labels[:, position] >= 0).any(1) & (k > 1)
        classes = small.nonzero()[:, 0]
        if len(classes):
            result[classes, position] = _enlarge(batch.take(classes), labels[classes, position], k, at_least)
    return result


def _enlarge(batch: Batch, labels: Tensor, k: int, at_least: int) -> Tensor:
    """(C, n) labels of classes that have a small cluster each."""
    columns = columns_of(labels[:, None], (k,), 1)
    counts = sizes_of(columns, k)
    centroids = means(batch, columns, counts)
    distances = gaps(batch, centroids, slice(0, batch.x.shape[1]))
    n = labels.shape[1]
    while True:
        short = counts < at_least
        needy = short.any(1, keepdim=True)
        if not needy.any():
            return labels
        own = labels.clamp(min=0)
        rise = distances - distances.gather(1, own[:, None])
        spare = (counts > at_least).gather(1, own) & (labels >= 0)
        rise = rise.masked_fill(~spare[:, None] | ~short[..., None], torch.inf)
        best = rise.flatten(1).argmin(1, keepdim=True)
        cluster, row = best // n, best % n
        before = labels.gather(1, row)
        labels = labels.scatter(1, row, torch.where(needy, cluster, before))
        moved = needy.long()
        counts = counts.scatter_add(1, cluster, moved).scatter_add(1, before.clamp(min=0), -moved)
