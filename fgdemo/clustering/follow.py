"""Class-wise k-means from epoch to epoch: features drift, clusters keep their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.checks import as_labels, as_rows
from fgdemo.clustering.classwise import classwise_kmeans
from fgdemo.clustering.result import ClasswiseClustering

BETTER_BY = 0.01
"""Share of the inertia that a clustering from new starts must save to take the place of the one that goes on."""


def label_means(x: Tensor, classes: np.ndarray, labels: np.ndarray, ks: Sequence[int]) -> Tensor:
    """Means of the rows of every cluster of every class and K.

    Args:
        x: (N, D).
        classes: (N,) class ids from 0.
        labels: (N, M) cluster inside the class under each K, -1 for none.
        ks: the M numbers of clusters.

    Returns:
        (C, sum(ks), D) float32 on the device of x, NaN where a cluster has no row.
    """
    total = sum(ks)
    starts = np.cumsum([0, *ks[:-1]])
    problems = int(classes.max()) + 1 if len(classes) else 0
    sums = torch.zeros(problems * total, x.shape[1], device=x.device)
    counts = torch.zeros(problems * total, device=x.device)
    for position, start in enumerate(starts):
        known = np.flatnonzero(labels[:, position] >= 0)
        column = torch.from_numpy(classes[known] * total + start + labels[known, position]).to(x.device)
        sums.index_add_(0, column, x[torch.from_numpy(known).to(x.device)].float())
        counts += torch.bincount(column, minlength=len(counts))
    means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], torch.nan)
    return means.view(problems, total, x.shape[1])


def follow_kmeans(
    x: Any, classes: Any, before: np.ndarray, ks: Sequence[int], *, challenge: bool = False, **options: Any
) -> ClasswiseClustering:
    """Cluster each class again from where its clusters stood, on features that have changed.

    Ids descend from those of `before`. With `challenge` new starts compete: where they save more than `BETTER_BY` of
    the inertia of a class under a K, their clusters take over, each under the id with which it shares most rows
    (Hungarian).

    Args:
        x: (N, D) features.
        classes: (N,) class ids from 0.
        before: (N, M) int64 clusters so far, -1 for none; a class and K without all of its clusters starts anew.
        ks: the M numbers of clusters, ascending.
        options: as in `classwise_kmeans`, without init.

    Raises:
        UserError: as `classwise_kmeans`.
    """
    rows = as_rows(x)
    ids = as_labels(classes, len(rows))
    found = classwise_kmeans(rows, ids, ks, init=label_means(rows, ids, before, ks), **options)
    if not challenge:
        return found
    rival = classwise_kmeans(rows, ids, ks, **options)
    with np.errstate(invalid="ignore"):
        better = rival.inertia < (1 - BETTER_BY) * found.inertia
    return take_over(found, rival, better) if better.any() else found


def take_over(found: ClasswiseClustering, rival: ClasswiseClustering, better: np.ndarray) -> ClasswiseClustering:
    """`found` with the clusters of `rival` where `better` (C, M) bool says so, under the ids they share most rows with.

    Both are clusterings of the same rows under the same ks. A class takes the rival's K where one of its divisions is
    taken.
    """
    labels, centroids = found.labels.copy(), found.centroids.copy()
    sizes, inertia = found.sizes.copy(), np.where(better, rival.inertia, found.inertia)
    for position, k in enumerate(found.ks):
        block = found.block(k)
        for c in np.flatnonzero(better[:, position]).tolist():
            mine = found.class_ids == c
            new_id = _matched(labels[mine, position], rival.labels[mine, position], k)
            labels[mine, position] = new_id[rival.labels[mine, position]]
            for table, theirs in ((centroids, rival.centroids), (sizes, rival.sizes)):
                table[c, block][new_id] = theirs[c, block]
    scores = {name: np.where(better, rival.scores[name], values) for name, values in found.scores.items()}
    chosen = np.where(better.any(1), rival.chosen, found.chosen)
    return replace(
        found, labels=labels, centroids=centroids, sizes=sizes, inertia=inertia, scores=scores, chosen=chosen
    )


def _matched(old: np.ndarray, new: np.ndarray, k: int) -> np.ndarray:
    """(k,) the old cluster that each new one takes the id of, one to one."""
    from scipy.optimize import linear_sum_assignment

    shared = np.bincount(new * k + old, minlength=k * k).reshape(k, k)
    return linear_sum_assignment(shared, maximize=True)[1]
