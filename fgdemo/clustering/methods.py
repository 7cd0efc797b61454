"""Clustering methods of one set of rows, by name, behind the result type of k-means."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fgdemo.clustering.batch import make_batch
from fgdemo.clustering.candidates import MAX_K, MIN_SIZE
from fgdemo.clustering.checks import as_choice, as_count, as_rows, as_seed
from fgdemo.clustering.choose_k import choose_k, simplified_silhouette
from fgdemo.clustering.kmeans import kmeans
from fgdemo.clustering.mixture import classwise_mixtures
from fgdemo.clustering.neighbours import nearest_rows, sample_rows
from fgdemo.clustering.partition import measure
from fgdemo.clustering.reduce import pca
from fgdemo.clustering.result import Clustering
from fgdemo.errors import UserError

METHODS = ("kmeans", "spherical", "gmm", "agglomerative", "hdbscan")

QUADRATIC_ROWS = 5000
"""Above it the methods quadratic in the rows (agglomerative, HDBSCAN) run on a seeded sample of so many rows, which
bounds their pairwise distances to 200 MB, and the K of a Gaussian mixture is chosen on one."""


def cluster(
    x: Any, method: str = "kmeans", k: int | None = None, seed: int = 0, pca_dim: int | None = None, max_k: int = MAX_K
) -> Clustering:
    """Partition rows by a named method.

    - "kmeans", "spherical": `kmeans`; automatic K by `choose_k`.
    - "gmm": Gaussian mixture with diagonal covariances, started from k-means, by largest posterior; automatic K by BIC.
    - "agglomerative": Ward linkage; automatic K = 1 where `choose_k` finds no structure, else the cut of the
      dendrogram with the largest simplified silhouette.
    - "hdbscan": finds its own number of clusters. Rows it calls noise go to the nearest cluster's centroid and are
      counted in `noise`; where it finds no cluster there is one.

    Args:
        x: (N, D) numpy array or tensor on any device.
        k: number of clusters, None for automatic. A mixture may leave components without rows, so fewer may be found.
        seed: decides seedings and samples.
        pca_dim: cluster in so many principal components (of the unit-norm rows where spherical). Centroids and inertia
            refer to the given (or unit-norm) rows all the same.
        max_k: largest automatic K.

    Returns:
        The clustering; `sampled` is set where the method ran on a sample of the rows and the others took the label of
        the nearest sampled row.

    Raises:
        UserError: bad features, unknown method, k or pca_dim out of range, or k given to HDBSCAN.
    """
    as_choice(method, "clustering method", METHODS)
    rows = as_rows(x)
    n = len(rows)
    seed = as_seed(seed)
    if k is not None:
        if method == "hdbscan":
            raise UserError("HDBSCAN finds its own number of clusters: leave k automatic, or choose another method.")
        k = as_count(k, "k (the number of clusters)", 1, n)
    max_k = as_count(max_k, "max_k", 1)
    space = rows if pca_dim is None else torch.from_numpy(pca(_unit(rows) if method == "spherical" else rows, pca_dim))
    if method in ("kmeans", "spherical"):
        # principal components of unit rows keep their distances, and centring them leaves no unit rows
        spherical = method == "spherical" and pca_dim is None
        k = choose_k(space, seed=seed, spherical=spherical, max_k=max_k)[0] if k is None else k
        found = kmeans(space, k, seed=seed, spherical=spherical)
        if pca_dim is None:
            return found
        return _result(
            rows, found.labels, seed, found.engine, found.backend, found.iterations, spherical=method == "spherical"
        )

    if method == "gmm":
        return _gmm(rows, space, k, max_k, seed)
    data = space.cpu().numpy().astype(np.float64)
    sample = sample_rows(n, QUADRATIC_ROWS, seed)
    base = data if sample is None else data[sample]
    noise = 0
    if method == "agglomerative":
        k = k if k is None else as_count(k, "k (the number of clusters)", 1, len(base))
        labels = _agglomerative(base, k, max_k, seed)
    else:
        labels, noise = _hdbscan(base)
    if sample is not None:
        everything = labels[nearest_rows(data, base, 1)[0][:, 0]]
        everything[sample] = labels
        labels = everything
    engine = "scipy" if method == "agglomerative" else "sklearn"
    return _result(rows, labels, seed, engine, "cpu", 0, sampled=None if sample is None else len(sample), noise=noise)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def _result(
    rows: torch.Tensor,
    labels: np.ndarray,
    seed: int,
    engine: str,
    backend: str,
    iterations: int,
    *,
    spherical: bool = False,
    sampled: int | None = None,
    noise: int = 0,
) -> Clustering:
    """The result for labels found in any space; ids without rows are closed up."""
    used, labels = np.unique(labels, return_inverse=True)
    labels = labels.astype(np.int64)
    batch = make_batch(rows[None], torch.tensor([len(rows)], device=rows.device), spherical=spherical)
    measures = measure(batch, torch.from_numpy(labels).to(rows.device)[None, None], (len(used),))
    return Clustering(
        labels=labels,
        centroids=measures.centroids[0].cpu().numpy(),
        inertia=float(measures.inertia),
        sizes=measures.sizes[0].cpu().numpy(),
        k=len(used),
        seed=seed,
        engine=engine,
        backend=backend,
        iterations=iterations,
        sampled=sampled,
        noise=noise,
    )


def _candidates(n: int, max_k: int) -> range:
    return range(1, max(1, min(max_k, n // MIN_SIZE)) + 1)


def _gmm(rows: torch.Tensor, space: torch.Tensor, k: int | None, max_k: int, seed: int) -> Clustering:
    """The mixture of `space`, as clusters of the rows."""
    one_class = np.zeros(len(space), np.int64)
    sample = sample_rows(len(space), QUADRATIC_ROWS, seed) if k is None else None
    if sample is not None:
        base = space[torch.from_numpy(sample).to(space.device)]
        k = int(classwise_mixtures(base, one_class[sample], max_k=max_k, seed=seed).chosen[0])
    if k is None:
        found = classwise_mixtures(space, one_class, max_k=max_k, seed=seed)
    else:
        found = classwise_mixtures(space, one_class, (k,), seed=seed, min_size=1, select=k)
        if np.isnan(found.bic).all():
            # fewer distinct rows than k: as many components as there are
            found = classwise_mixtures(space, one_class, range(1, k), seed=seed, min_size=1, select=k - 1)
    position = found.ks.index(found.chosen[0])
    iterations = int(found.iterations[0, position])
    return _result(rows, found.labels[:, position], seed, "torch", found.backend, iterations)


def _agglomerative(data: np.ndarray, k: int | None, max_k: int, seed: int) -> np.ndarray:
    from scipy.cluster.hierarchy import linkage

    if len(data) == 1:
        return np.zeros(1, np.int64)
    if k is None and choose_k(data, seed=seed, max_k=max_k)[0] == 1:
        return np.zeros(len(data), np.int64)
    tree = linkage(data, "ward")
    if k is not None:
        return _cut(tree, len(data), k)
    cuts = [_cut(tree, len(data), several) for several in _candidates(len(data), max_k)[1:]]
    return max(cuts, key=lambda labels: simplified_silhouette(data, labels))


def _cut(tree: np.ndarray, n: int, k: int) -> np.ndarray:
    """(n,) labels of the k clusters that remain after the first n - k merges of a linkage."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    merges = tree[: n - k, :2].astype(np.int64)
    parents = np.repeat(n + np.arange(n - k), 2)
    nodes = 2 * n - k
    graph = coo_matrix((np.ones(len(parents)), (merges.ravel(), parents)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1][:n].astype(np.int64)


def _hdbscan(data: np.ndarray) -> tuple[np.ndarray, int]:
    from sklearn.cluster import HDBSCAN

    n = len(data)
    smallest = max(2, min(max(5, n // 50), n // 2))
    if n < 2 * smallest:
        return np.zeros(n, np.int64), 0
    labels = HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(data).astype(np.int64)
    stray = labels < 0
    if stray.all():
        return np.zeros(n, np.int64), n
    ids = np.unique(labels[~stray])
    centroids = np.stack([data[labels == i].mean(0) for i in ids])
    if stray.any():
        labels[stray] = ids[nearest_rows(data[stray], centroids, 1)[0][:, 0]]
    return labels, int(stray.sum())
