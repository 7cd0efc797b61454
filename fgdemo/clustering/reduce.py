"""Fewer dimensions: PCA, and pictures in the plane."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgdemo.clustering.checks import as_choice, as_count, as_rows, as_seed
from fgdemo.clustering.neighbours import nearest_rows, sample_rows
from fgdemo.errors import UserError

PROJECTIONS = ("pca", "tsne", "umap")

PROJECTED_ROWS = 3000
"""Above it t-SNE and UMAP run on a seeded sample of so many rows."""

FEWEST_ROWS = 10
"""Below it t-SNE and UMAP have no neighbourhoods to show, and PCA is used."""

PLACED_BY = 3
"""Rows outside the sample go to the weighted mean of so many nearest sampled rows."""


@dataclass(frozen=True)
class Projection:
    """points (N, 2) float32; method that was really used; number of sampled rows, None if all were used."""

    points: np.ndarray
    method: str
    sampled: int | None = None


def pca(x: Any, d: int, seed: int = 0) -> np.ndarray:
    """(N, d) float32 principal components of the centred rows, largest variance first.

    Exact (eigenvectors of the covariance or a full SVD); the sign of each component is fixed by its largest loading.

    Raises:
        UserError: d outside 1 to min(N, D).
    """
    from sklearn.decomposition import PCA

    rows = as_rows(x).cpu().numpy()
    d = as_count(d, "d (the number of principal components)", 1, min(rows.shape))
    solver = "covariance_eigh" if rows.shape[0] > rows.shape[1] else "full"
    reducer = PCA(d, svd_solver=solver, random_state=as_seed(seed))
    # the shares of variance, which are not used, are undefined for a single row or equal rows
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.ascontiguousarray(reducer.fit_transform(rows.astype(np.float64)), dtype=np.float32)


def project2d(x: Any, method: str = "pca", seed: int = 0) -> Projection:
    """Place rows in the plane, the same for the same seed.

    t-SNE (van der Maaten and Hinton, 2008) and UMAP (McInnes, Healy and Melville, 2018) run on at most PROJECTED_ROWS
    rows; the others go to the mean of their nearest sampled neighbours, weighted by inverse distance. With fewer than
    FEWEST_ROWS rows PCA takes their place, and `Projection.method` says so.

    Raises:
        UserError: bad features, unknown method, or umap-learn missing.
    """
    as_choice(method, "projection", PROJECTIONS)
    rows, seed = as_rows(x).cpu().numpy(), as_seed(seed)
    fit = {"pca": _pca2, "tsne": _tsne, "umap": _umap}[method]
    if method == "pca" or len(rows) < FEWEST_ROWS:
        return Projection(_pca2(rows, seed), "pca")
    sample = sample_rows(len(rows), PROJECTED_ROWS, seed)
    if sample is None:
        return Projection(fit(rows, seed), method)
    placed = fit(rows[sample], seed)
    points = np.empty((len(rows), 2), np.float32)
    points[sample] = placed
    rest = np.setdiff1d(np.arange(len(rows)), sample)
    near, distances = nearest_rows(rows[rest], rows[sample], PLACED_BY)
    weights = 1 / np.maximum(distances, 1e-12)
    weights /= weights.sum(1, keepdims=True)
    points[rest] = (weights[..., None] * placed[near]).sum(1)
    return Projection(points, method, len(sample))


def _pca2(rows: np.ndarray, seed: int) -> np.ndarray:
    d = min(2, *rows.shape)
    return np.pad(pca(rows, d, seed), ((0, 0), (0, 2 - d)))


def _tsne(rows: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(30, (len(rows) - 1) / 3)
    start = _pca2(rows, seed)
    spread = start[:, 0].std()
    # as TSNE's own init="pca", which needs at least two dimensions
    start = start / spread * 1e-4 if spread > 0 else "random"
    return TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(rows).astype(np.float32)


def _umap(rows: np.ndarray, seed: int) -> np.ndarray:
    try:
        import umap
    except ImportError:
        raise UserError("The projection 'umap' needs umap-learn: `pip install umap-learn`.") from None
    with warnings.catch_warnings():
        # a seed makes UMAP use one thread, which it warns of
        warnings.filterwarnings("ignore", message="n_jobs value")
        reducer = umap.UMAP(n_neighbors=min(15, len(rows) - 1), init=_umap_start(rows, seed), random_state=seed)
        return reducer.fit_transform(rows).astype(np.float32)


def _umap_start(rows: np.ndarray, seed: int) -> np.ndarray:
    # the spectral start fails on small or disconnected graphs and depends on the eigensolver
    start = _pca2(rows, seed)
    return start / max(float(np.abs(start).max()), 1e-12) * 10
