"""Stability under resampling (the bootstrap of Hennig, 2007, with the adjusted Rand index).

Mean ARI between the clustering and those of bootstrap samples, extended to all rows by the nearest centroid; 1 for
K = 1. Among K > 1 the largest within `STABLE_TIE` of the most stable is taken, unless even that one stays below
`STABLE`: then K = 1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch, make_batch, rows_at
from fgdemo.clustering.criteria.division import Criterion, Division, best_or_one
from fgdemo.clustering.lloyd import column_blocks, columns_of, one_hot
from fgdemo.clustering.partition import assign, measure, partition
from fgdemo.clustering.seeding import draws

BOOTSTRAPS = 10
STABLE = 0.8
STABLE_TIE = 0.02
BOOTSTRAP_RESTARTS = 3


def score(division: Division) -> dict[str, Tensor]:
    """Mean adjusted Rand index of every class under every K."""
    ari = bootstrap_ari(division.batch, division.labels, division.ks, division.admissible, division.seed)
    return {"stability": ari}


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


def choose_by_stability(ks: tuple[int, ...], scores: np.ndarray) -> np.ndarray:
    """(C,) position in `ks` of the chosen K, from (C, M) scores with NaN where inadmissible; -1 if all are."""
    known = (np.array(ks) > 1) & ~np.isnan(scores)
    stability = np.where(known, scores, -np.inf)
    best = stability.max(1, keepdims=True)
    tied = np.where(known & (stability >= best - STABLE_TIE), np.arange(len(ks)), -np.inf)
    return np.where(np.isnan(scores).all(1), -1, best_or_one(ks, tied, best[:, 0] >= STABLE))


STABILITY = Criterion(score, lambda ks, scores: choose_by_stability(ks, scores["stability"]))
