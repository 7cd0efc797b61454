"""Scores by which the number of clusters of a class is chosen, K = 1 included, and the rules that read them.

- Simplified silhouette (Hruschka, de Castro and Campello, 2004): mean of (b - a) / max(a, b) with a and b the
  distances to the own and to the nearest other centroid; a row alone in its cluster counts 0. Undefined for K = 1,
  where the convention here is 0. Structureless rows have positive silhouettes too, so each is read against a
  reference: the same k-means on one Gaussian with the class's (shrunk) covariance, as in SigClust (Liu, Hayes, Nobel
  and Marron, JASA 2008) with the silhouette as its statistic. An excess over the reference's mean is convincing from
  `EXCESS_DEVIATIONS` standard deviations of the reference (root mean square over K) and from `EXCESS_FLOOR`. The
  smallest K with a convincing excess not below that of the next candidate is taken (the gap statistic's rule:
  Tibshirani, Walther and Hastie, 2001; clusters of unequal spread make the excess rise again later), and K = 1 if
  there is none. Spherical clusters are scored on the unit-norm rows with their plain means, because a Gaussian put
  back on the sphere may have two modes.
- BIC of K spherical Gaussians of one variance with hard assignment (Pelleg and Moore, "X-means", ICML 2000); the
  largest wins. It sees elongated classes as several.
- Stability (bootstrap of Hennig, 2007, with the adjusted Rand index): mean ARI between the clustering and those of
  bootstrap samples, extended to all rows by the nearest centroid; 1 for K = 1. Among K > 1 the largest within
  `STABLE_TIE` of the most stable is taken, unless even that one stays below `STABLE`: then K = 1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch, make_batch, rows_at
from fgdemo.clustering.lloyd import column_blocks, columns_of, one_hot
from fgdemo.clustering.partition import assign, measure, partition
from fgdemo.clustering.seeding import draws

CRITERIA = ("silhouette", "bic", "stability")

REFERENCES = 10
REFERENCE_ROWS = 512
EXCESS_DEVIATIONS = 4.0
EXCESS_FLOOR = 0.01
BOOTSTRAPS = 10
STABLE = 0.8
STABLE_TIE = 0.02
BOOTSTRAP_RESTARTS = 3


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


def reference_silhouettes(
    batch: Batch, ks: tuple[int, ...], admissible: Tensor, seed: int, references: int = REFERENCES
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C, M) of the simplified silhouette of k-means on structureless classes.

    Each reference is drawn from one Gaussian with the covariance of the class shrunk towards a sphere by
    OAS (Chen, Wiesel, Eldar and Hero, 2010, equation 23), since with few rows the sample covariance is far more uneven
    than the true one. Classes above REFERENCE_ROWS rows are stood in for by as many of them, evenly spaced; fewer rows
    give larger silhouettes, which errs towards K = 1.
    """
    classes, n, dim = batch.x.shape
    sizes = batch.sizes.clamp(max=REFERENCE_ROWS)
    rows = int(sizes.max())
    index = (torch.arange(rows, device=batch.x.device) * batch.sizes[:, None]) // sizes[:, None].clamp(min=1)
    index = index.clamp(max=n - 1)
    mask = torch.arange(rows, device=batch.x.device) < sizes[:, None]
    base = rows_at(batch.x, index)
    base = torch.where(mask[..., None], base, 0)
    base = torch.where(mask[..., None], base - base.sum(1, keepdim=True) / sizes[:, None, None], 0)
    variance, shrinkage = _shrinkage(base, sizes)
    spread = ((1 - shrinkage) / (sizes - 1).clamp(min=1)).sqrt()[:, None, None]
    noise = (shrinkage * variance).sqrt()[:, None, None]

    random = np.random.default_rng([seed, 1])
    found = []
    for reference in range(references):
        mixing = torch.from_numpy(random.standard_normal((REFERENCE_ROWS, REFERENCE_ROWS), np.float32))[:rows, :rows]
        sphere = torch.from_numpy(random.standard_normal((REFERENCE_ROWS, dim), np.float32))[:rows]
        drawn = spread * (mixing.to(base.device) @ base) + noise * sphere.to(base.device)
        surrogate = make_batch(drawn, sizes)
        uniform = torch.from_numpy(draws(seed + 1 + reference, 1, max(ks), 1)).to(base.device)
        labels, _ = partition(surrogate, ks, admissible, uniform.expand(classes, -1, -1, -1))
        found.append(measure(surrogate, labels, ks).silhouette)
    stacked = torch.stack(found)
    return stacked.mean(0), stacked.std(0)


def _shrinkage(base: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean variance (C,) of a dimension, and the share (C,) of the sphere in the shrunk covariance."""
    dim = base.shape[2]
    n = sizes.clamp(min=2).double()
    small = base.transpose(1, 2) if base.shape[1] > dim else base
    gram = torch.bmm(small, small.transpose(1, 2)).double() / (n - 1)[:, None, None]
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    squared = gram.square().sum((1, 2))
    numerator = (1 - 2 / dim) * squared + trace.square()
    denominator = (n + 1 - 2 / dim) * (squared - trace.square() / dim)
    share = torch.where(denominator > 0, numerator / denominator.clamp(min=1e-300), 1).clamp(0, 1)
    return (trace / dim).float(), share.float()


def bootstrap_ari(
    batch: Batch, labels: Tensor, ks: tuple[int, ...], admissible: Tensor, seed: int, bootstraps: int = BOOTSTRAPS
) -> Tensor:
    """(C, M) float64 mean ARI between (C, M, n) labels and the clusterings of bootstrap samples of the rows."""
    classes, n, _ = batch.x.shape
    random = np.random.default_rng([seed, 2])
    total = torch.zeros(labels.shape[:2], dtype=torch.float64, device=labels.device)
    for bootstrap in range(bootstraps):
        share = torch.from_numpy(random.random(n)).to(batch.x.device)
        index = (share * batch.sizes[:, None]).long()
        sample = make_batch(rows_at(batch.x, index), batch.sizes, spherical=batch.spherical)
        uniform = torch.from_numpy(draws(seed + 1 + bootstrap, 1, max(ks), BOOTSTRAP_RESTARTS)).to(batch.x.device)
        drawn, _ = partition(sample, ks, admissible, uniform.expand(classes, -1, -1, -1))
        centroids = measure(sample, drawn, ks).centroids
        extended = assign(_uncentred(batch), centroids, ks)
        total += adjusted_rand(labels, extended, ks)
    return total / bootstraps


def _uncentred(batch: Batch) -> Batch:
    """The batch in its own coordinates, which are those that samples of its rows return centroids in."""
    return replace(batch, mean=torch.zeros_like(batch.mean))


def adjusted_rand(first: Tensor, second: Tensor, ks: tuple[int, ...]) -> Tensor:
    """(C, M) float64 adjusted Rand index (Hubert and Arabie, 1985) of (C, M, n) labels, -1 in padded rows."""
    results = []
    for position, (k, _, _) in enumerate(column_blocks(ks, 1)):
        one, two = (one_hot(columns_of(labels[:, [position]], (k,), 1), k) for labels in (first, second))
        table = torch.bmm(one, two.transpose(1, 2)).double()
        pairs = _pairs(table).sum((1, 2))
        rows, columns = _pairs(table.sum(2)).sum(1), _pairs(table.sum(1)).sum(1)
        expected = rows * columns / _pairs(table.sum((1, 2))).clamp(min=1)
        highest = (rows + columns) / 2
        # both all-in-one or both all singletons: identical partitions
        same = highest == expected
        results.append(torch.where(same, 1, (pairs - expected) / torch.where(same, 1, highest - expected)))
    return torch.stack(results, 1)


def _pairs(counts: Tensor) -> Tensor:
    return counts * (counts - 1) / 2


def choose_by_silhouette(
    ks: tuple[int, ...], scores: np.ndarray, reference: np.ndarray, deviation: np.ndarray
) -> np.ndarray:
    """(C,) position in `ks` of the chosen K, from (C, M) arrays with NaN where inadmissible; -1 if all are.

    Without 1 among the candidates, where none is convincing, the K with the largest excess is taken.
    """
    several = np.array(ks) > 1
    known = several & ~np.isnan(scores)
    squares = np.where(known, deviation, 0) ** 2
    pooled = np.sqrt(squares.sum(1) / np.maximum(known.sum(1), 1))
    excess = np.where(known, scores - reference, -np.inf)
    following = np.concatenate([excess[:, 1:], np.full((len(excess), 1), -np.inf)], 1)
    convincing = excess > np.maximum(EXCESS_DEVIATIONS * pooled, EXCESS_FLOOR)[:, None]
    summit = convincing & (excess >= following)
    merit = np.where(summit.any(1, keepdims=True), summit, excess)
    return np.where(np.isnan(scores).all(1), -1, _best_or_one(ks, merit, convincing.any(1)))


def choose_by_bic(scores: np.ndarray) -> np.ndarray:
    """(C,) position of the largest of (C, M) scores with NaN where inadmissible; -1 if all are."""
    return np.where(np.isnan(scores).all(1), -1, np.where(np.isnan(scores), -np.inf, scores).argmax(1))


def choose_by_stability(ks: tuple[int, ...], scores: np.ndarray) -> np.ndarray:
    """(C,) position in `ks` of the chosen K, from (C, M) scores with NaN where inadmissible; -1 if all are."""
    known = (np.array(ks) > 1) & ~np.isnan(scores)
    stability = np.where(known, scores, -np.inf)
    best = stability.max(1, keepdims=True)
    tied = np.where(known & (stability >= best - STABLE_TIE), np.arange(len(ks)), -np.inf)
    return np.where(np.isnan(scores).all(1), -1, _best_or_one(ks, tied, best[:, 0] >= STABLE))


def _best_or_one(ks: tuple[int, ...], merit: np.ndarray, convincing: np.ndarray) -> np.ndarray:
    best = merit.argmax(1)
    return np.where(convincing, best, ks.index(1)) if 1 in ks else best
