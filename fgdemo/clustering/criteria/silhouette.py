"""Simplified silhouette (Hruschka, de Castro and Campello, 2004) against a structureless reference.

The silhouette is the mean of (b - a) / max(a, b) with a and b the distances to the own and to the nearest other
centroid; a row alone in its cluster counts 0. Undefined for K = 1, where the convention here is 0. Structureless rows
have positive silhouettes too, so each is read against a reference: the same k-means on one Gaussian with the class's
(shrunk) covariance, as in SigClust (Liu, Hayes, Nobel and Marron, JASA 2008) with the silhouette as its statistic. An
excess over the reference's mean is convincing from `EXCESS_DEVIATIONS` standard deviations of the reference (root mean
square over K) and from `EXCESS_FLOOR`. The smallest K with a convincing excess not below that of the next candidate is
taken (the gap statistic's rule: Tibshirani, Walther and Hastie, 2001; clusters of unequal spread make the excess rise
again later), and K = 1 if there is none. Spherical clusters are scored on the unit-norm rows with their plain means,
because a Gaussian put back on the sphere may have two modes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch, make_batch, rows_at
from fgdemo.clustering.criteria.division import Criterion, Division, best_or_one
from fgdemo.clustering.partition import measure, partition
from fgdemo.clustering.seeding import draws

REFERENCES = 10
REFERENCE_ROWS = 512
EXCESS_DEVIATIONS = 4.0
EXCESS_FLOOR = 0.01


def score(division: Division) -> dict[str, Tensor]:
    """The silhouette, and mean and standard deviation of its reference."""
    mean, deviation = reference_silhouettes(division.flat, division.ks, division.admissible, division.seed)
    return {
        "silhouette": division.flat_measures.silhouette,
        "silhouette_reference": mean,
        "silhouette_deviation": deviation,
    }


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
    return np.where(np.isnan(scores).all(1), -1, best_or_one(ks, merit, convincing.any(1)))


SILHOUETTE = Criterion(
    score,
    lambda ks, scores: choose_by_silhouette(
        ks, scores["silhouette"], scores["silhouette_reference"], scores["silhouette_deviation"]
    ),
)
