"""Identity of clusters across re-clusterings."""

from __future__ import annotations

from typing import Any

import numpy as np

from fgdemo.clustering.checks import as_labels


def match_ids(old_labels: Any, new_labels: Any, old_ids: Any, next_id: int) -> tuple[np.ndarray, int]:
    """Give each new cluster the id of the old one it continues, or a fresh one.

    The matching maximises the number of rows that keep their id (Hungarian, on the counts of shared rows). Clusters
    without a shared row are never matched, ids that found no new cluster are dropped for good.

    Args:
        old_labels: (N,) position in `old_ids` of each row's old cluster, -1 for none.
        new_labels: (N,) new cluster of the same rows, from 0, -1 for none.
        old_ids: (K_old,) distinct integer ids below `next_id`.
        next_id: first id never used.

    Returns:
        (K_new,) int64 id of each new cluster, and the next free id.
    """
    from scipy.sparse import bmat, coo_matrix
    from scipy.sparse.csgraph import connected_components

    ids = _known_ids(old_ids, next_id)
    old = as_labels(old_labels, len(old_labels), name="old labels", lowest=-1)
    new = as_labels(new_labels, len(old), name="new labels", lowest=-1)
    if len(old) and old.max() >= len(ids):
        raise ValueError(f"old label {old.max()} has no id among {len(ids)}")
    count = int(new.max()) + 1 if len(new) else 0
    both = (old >= 0) & (new >= 0)
    shape = (len(ids), count)
    overlap = coo_matrix((np.ones(both.sum(), np.int64), (old[both], new[both])), shape=shape).tocsr()
    matched = np.full(count, -1, np.int64)
    if overlap.nnz:
        # clusters of different classes share no rows: one small dense matching for each component
        _, component = connected_components(bmat([[None, overlap], [overlap.T, None]]), directed=False)
        ends = np.argsort(component, kind="stable")
        for members in np.split(ends, np.flatnonzero(np.diff(component[ends])) + 1):
            rows, columns = members[members < len(ids)], members[members >= len(ids)] - len(ids)
            if len(rows) and len(columns):
                _match(overlap[rows][:, columns].toarray(), rows, columns, matched)
    return _with_fresh_ids(matched, ids, next_id)


def match_centroids(
    old_centroids: np.ndarray, new_centroids: np.ndarray, old_ids: Any, next_id: int
) -> tuple[np.ndarray, int]:
    """As `match_ids` where the rows differ: the matching minimises the sum of squared distances of centroids.

    Args:
        old_centroids, new_centroids: (K_old, D) and (K_new, D) of one class. All of the smaller side is matched.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    ids = _known_ids(old_ids, next_id)
    matched = np.full(len(new_centroids), -1, np.int64)
    rows, columns = linear_sum_assignment(cdist(old_centroids, new_centroids, "sqeuclidean"))
    matched[columns] = rows
    return _with_fresh_ids(matched, ids, next_id)


def _match(overlap: np.ndarray, rows: np.ndarray, columns: np.ndarray, matched: np.ndarray) -> None:
    from scipy.optimize import linear_sum_assignment

    i, j = linear_sum_assignment(overlap, maximize=True)
    shared = overlap[i, j] > 0
    matched[columns[j[shared]]] = rows[i[shared]]


def _known_ids(old_ids: Any, next_id: int) -> np.ndarray:
    ids = np.asarray(old_ids, np.int64).reshape(-1)
    if len(np.unique(ids)) < len(ids) or (len(ids) and ids.max() >= next_id):
        raise ValueError("old ids must be distinct and below next_id")
    return ids


def _with_fresh_ids(matched: np.ndarray, ids: np.ndarray, next_id: int) -> tuple[np.ndarray, int]:
    fresh = matched < 0
    result = np.empty_like(matched)
    result[~fresh] = ids[matched[~fresh]]
    result[fresh] = next_id + np.arange(fresh.sum())
    return result, int(next_id + fresh.sum())
