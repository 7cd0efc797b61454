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

from fgdemo.clustering.criteria.division import Criterion, Division, best_or_one
from fgdemo.clustering.criteria.reference import structureless

EXCESS_DEVIATIONS = 4.0
EXCESS_FLOOR = 0.01


def score(division: Division) -> dict[str, Tensor]:
    """The silhouette, and mean and standard deviation of its reference."""
    references = torch.stack([measures.silhouette for measures in structureless(division)])
    return {
        "silhouette": division.flat_measures.silhouette,
        "silhouette_reference": references.mean(0),
        "silhouette_deviation": references.std(0),
    }


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
