"""How good a clustering is, by itself and against known groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fgdemo.clustering.batch import make_batch
from fgdemo.clustering.checks import as_labels, as_rows
from fgdemo.clustering.neighbours import sample_rows
from fgdemo.clustering.partition import measure

SILHOUETTE_ROWS = 5000
"""The silhouette is quadratic in the rows: above it a seeded sample of so many is scored."""


def inertia_ratio(x: Any, labels: Any) -> float:
    """J_K / J_1, the share of the variance around the mean that the clusters leave unexplained, in [0, 1].

    Args:
        x: (N, D) rows.
        labels: (N,) cluster ids from 0, not necessarily all used.

    Returns:
        0 also where all rows are equal.
    """
    rows = as_rows(x)
    clusters = np.unique(as_labels(labels, len(rows)), return_inverse=True)[1]
    batch = make_batch(rows[None], torch.tensor([len(rows)], device=rows.device))
    ids = torch.from_numpy(clusters).to(rows.device)[None, None]
    total = float(batch.square.sum(dtype=torch.float64))
    return float(measure(batch, ids, (int(clusters.max()) + 1,)).inertia) / total if total > 0 else 0.0


def silhouette(x: Any, labels: Any, seed: int = 0) -> float:
    """Mean silhouette (Rousseeuw, 1987) by Euclidean distance, in [-1, 1].

    NaN for a single cluster, which it is not defined for; 0 where every row is a cluster.
    """
    from sklearn.metrics import silhouette_score

    rows = as_rows(x).cpu().numpy()
    clusters = as_labels(labels, len(rows))
    sample = sample_rows(len(rows), SILHOUETTE_ROWS, seed)
    if sample is not None:
        rows, clusters = rows[sample], clusters[sample]
    found = len(np.unique(clusters))
    if found < 2:
        return float("nan")
    return 0.0 if found == len(rows) else float(silhouette_score(rows, clusters))


def nmi(truth: Any, labels: Any) -> float:
    """Normalised mutual information, arithmetic mean of the entropies."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(*_pair(truth, labels)))


def ami(truth: Any, labels: Any) -> float:
    """Adjusted mutual information (Vinh, Epps and Bailey, 2010), arithmetic mean of the entropies."""
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(*_pair(truth, labels)))


def ari(truth: Any, labels: Any) -> float:
    """Adjusted Rand index (Hubert and Arabie, 1985)."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(*_pair(truth, labels)))


def classwise_ari(classes: Any, first: Any, second: Any) -> np.ndarray:
    """(C,) adjusted Rand index between two divisions of each class, all classes at once.

    Args:
        classes: (N,) class ids from 0.
        first, second: (N,) clusters from 0 inside the class, -1 for none; such rows are left out.

    Returns:
        float64; 1 where both divisions are the trivial one, NaN for a class without rows.
    """
    ids = as_labels(classes, len(classes), name="classes")
    a, b = (as_labels(labels, len(ids), name="clusters", lowest=-1) for labels in (first, second))
    shape = (int(ids.max()) + 1, int(a.max()) + 1, int(b.max()) + 1) if len(ids) else (0, 0, 0)
    table = np.zeros(shape)
    known = (a >= 0) & (b >= 0)
    np.add.at(table, (ids[known], a[known], b[known]), 1)

    def pairs(counts: np.ndarray) -> np.ndarray:
        return (counts * (counts - 1) / 2).sum(tuple(range(1, counts.ndim)))

    sizes = table.sum((1, 2))
    both, rows, columns = pairs(table), pairs(table.sum(2)), pairs(table.sum(1))
    everything = sizes * (sizes - 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = rows * columns / everything
        result = (both - expected) / ((rows + columns) / 2 - expected)
    # equal divisions of one cluster, or of single rows only, leave nothing to be expected
    result = np.where((rows + columns) / 2 == np.where(everything > 0, expected, 0), 1.0, result)
    return np.where(sizes > 0, result, np.nan)


def hungarian_accuracy(truth: Any, labels: Any) -> float:
    """Share of rows in the right group under the best one-to-one matching of clusters and groups."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(*_pair(truth, labels))
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


def _pair(truth: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    known = as_labels(truth, len(truth), name="truth")
    return known, as_labels(labels, len(known))
