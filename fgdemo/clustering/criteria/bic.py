"""BIC of K spherical Gaussians of one variance with hard assignment (Pelleg and Moore, "X-means", ICML 2000).

The largest wins. It sees elongated classes as several.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.criteria.division import Criterion, Division
from fgdemo.clustering.lloyd import column_blocks


def bic(inertia: np.ndarray, sizes: np.ndarray, dim: int) -> np.ndarray:
    """2 log L - p log n of hard spherical Gaussians with one variance; larger is better.

    Args:
        inertia: (...) sums of squared distances to the own centroid.
        sizes: (..., K) cluster sizes.
        dim: D of the rows.

    Returns:
        (...) float64; -inf where n <= K leaves no degree of freedom for the variance.
    """
    inertia, sizes = np.asarray(inertia, np.float64), np.asarray(sizes, np.float64)
    n, k = sizes.sum(-1), sizes.shape[-1]
    freedom = n - k
    variance = np.maximum(inertia, np.finfo(np.float64).tiny) / (np.maximum(freedom, 1) * dim)
    prior = (sizes * np.log(np.maximum(sizes, 1) / np.maximum(n, 1)[..., None])).sum(-1)
    likelihood = prior - n * dim / 2 * np.log(2 * np.pi * variance) - freedom * dim / 2
    parameters = (k - 1) + k * dim + 1
    return np.where(freedom > 0, 2 * likelihood - parameters * np.log(np.maximum(n, 1)), -np.inf)


def score(division: Division) -> dict[str, Tensor]:
    """The BIC of every class under every K."""
    inertia, sizes = (t.cpu().numpy() for t in (division.measures.inertia, division.measures.sizes))
    blocks = enumerate(column_blocks(division.ks, 1))
    dim = division.batch.x.shape[2]
    found = [bic(inertia[:, p], sizes[:, columns], dim) for p, (_, _, columns) in blocks]
    return {"bic": torch.from_numpy(np.stack(found, 1))}


def choose_by_bic(scores: np.ndarray) -> np.ndarray:
    """(C,) position of the largest of (C, M) scores with NaN where inadmissible; -1 if all are."""
    return np.where(np.isnan(scores).all(1), -1, np.where(np.isnan(scores), -np.inf, scores).argmax(1))


BIC = Criterion(score, lambda ks, scores: choose_by_bic(scores["bic"]))
