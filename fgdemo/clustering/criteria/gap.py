"""Gap statistic (Tibshirani, Walther and Hastie, JRSS B 2001), with a Gaussian as the reference.

gap(K) is the mean of log W over structureless references less that of the class, W the mean squared distance to the own
centroid. The smallest K is taken whose gap is at least that of the next candidate less its standard error, s =
deviation * sqrt(1 + 1 / references). The published references are uniform in a box; here they have the class's own
shrunk covariance (reference.py), since a box in hundreds of dimensions looks like nothing that a network returns.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.criteria.division import Criterion, Division
from fgdemo.clustering.criteria.reference import REFERENCE_ROWS, structureless


def score(division: Division) -> dict[str, Tensor]:
    """The gap of every class under every K, and its standard error."""
    sizes = division.batch.sizes[:, None]
    rows = sizes.clamp(max=REFERENCE_ROWS)
    references = torch.stack([_log(measures.inertia / rows) for measures in structureless(division)])
    gap = references.mean(0) - _log(division.flat_measures.inertia / sizes)
    error = references.std(0, correction=0) * (1 + 1 / len(references)) ** 0.5
    return {"gap": gap, "gap_error": error}


def _log(dispersion: Tensor) -> Tensor:
    # equal rows have none
    return dispersion.clamp(min=1e-30).log()


def choose_by_gap(ks: tuple[int, ...], gap: np.ndarray, error: np.ndarray) -> np.ndarray:
    """(C,) position in `ks` of the chosen K, from (C, M) arrays with NaN where inadmissible; -1 if all are."""
    known = ~np.isnan(gap)
    chosen = np.full(len(gap), -1)
    following = np.full(len(gap), -np.inf)
    # from the largest K down: a K with a sufficient gap takes over from those above it, and is what the next is read
    # against
    for position in reversed(range(len(ks))):
        here = known[:, position]
        chosen = np.where(here & ((gap[:, position] >= following) | (chosen < 0)), position, chosen)
        following = np.where(here, gap[:, position] - error[:, position], following)
    return chosen


GAP = Criterion(score, lambda ks, scores: choose_by_gap(ks, scores["gap"], scores["gap_error"]))
