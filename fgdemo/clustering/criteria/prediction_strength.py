"""Prediction strength (Tibshirani and Walther, JCGS 2005).

A class is halved at random. Of each cluster of one half, how many of its pairs do the centroids of the other half put
together? The strength is that share of the cluster where it is lowest; a cluster of one row counts as kept. It is 1 for
K = 1. The largest K whose strength, averaged over halvings, reaches `STRONG` is taken.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import make_batch, rows_at
from fgdemo.clustering.criteria.division import Criterion, Division
from fgdemo.clustering.lloyd import column_blocks, columns_of, one_hot
from fgdemo.clustering.partition import assign, measure, partition
from fgdemo.clustering.seeding import draws

HALVINGS = 10
RESTARTS = 3
STRONG = 0.8


def score(division: Division) -> dict[str, Tensor]:
    """Mean strength of every class under every K; NaN where half a class has fewer than K rows."""
    batch, ks = division.batch, division.ks
    classes, n, _ = batch.x.shape
    random = np.random.default_rng([division.seed, 5])
    sizes = (batch.sizes - batch.sizes // 2, batch.sizes // 2)
    wanted = torch.tensor(ks, device=batch.x.device)
    possible = division.admissible & (sizes[1][:, None] >= wanted)
    total = torch.zeros(division.labels.shape[:2], dtype=torch.float64, device=batch.x.device)
    for halving in range(HALVINGS if n > 1 else 0):
        order = torch.from_numpy(random.random((1, n))).to(batch.x.device).expand(classes, -1)
        order = torch.where(batch.mask, order, torch.inf).argsort(1)
        places = torch.arange(n, device=batch.x.device)[: int(sizes[0].max())]
        halves = []
        for first, size in zip((torch.zeros_like(sizes[0]), sizes[0]), sizes, strict=True):
            rows = rows_at(batch.x, order.gather(1, (first[:, None] + places).clamp(max=n - 1)))
            halves.append(make_batch(rows, size.clamp(min=1), spherical=batch.spherical))
        uniform = torch.from_numpy(draws(division.seed + 1 + halving, 1, max(ks), RESTARTS)).to(batch.x.device)
        labels = [partition(half, ks, possible, uniform.expand(classes, -1, -1, -1))[0] for half in halves]
        labels = [torch.where(possible[..., None], found, -1) for found in labels]
        for own, other in ((0, 1), (1, 0)):
            centroids = measure(halves[other], labels[other], ks).centroids
            predicted = torch.where(possible[..., None], assign(halves[own], centroids, ks), -1)
            total += strength(labels[own], predicted, ks) / (2 * HALVINGS)
    return {"prediction-strength": torch.where(possible | (wanted == 1), torch.where(wanted == 1, 1, total), torch.nan)}


def strength(labels: Tensor, predicted: Tensor, ks: tuple[int, ...]) -> Tensor:
    """(C, M) float64: over the clusters of (C, M, n) labels, the lowest share of pairs that `predicted` keeps."""
    results = []
    for position, (k, _, _) in enumerate(column_blocks(ks, 1)):
        own, other = (one_hot(columns_of(part[:, [position]], (k,), 1), k) for part in (labels, predicted))
        table = torch.bmm(own, other.transpose(1, 2)).double()
        kept = (table * (table - 1)).sum(2)
        pairs = table.sum(2) * (table.sum(2) - 1)
        results.append(torch.where(pairs > 0, kept / pairs.clamp(min=1), 1).amin(1))
    return torch.stack(results, 1)


def choose_by_strength(ks: tuple[int, ...], scores: np.ndarray) -> np.ndarray:
    """(C,) position in `ks` of the chosen K, from (C, M) scores with NaN where inadmissible; -1 if all are.

    Where none is strong, the smallest admissible K is taken.
    """
    known = ~np.isnan(scores)
    strong = np.where(known & (np.where(known, scores, 0) >= STRONG), np.arange(len(ks)), -1).max(1)
    return np.where(strong >= 0, strong, np.where(known.any(1), known.argmax(1), -1))


PREDICTION_STRENGTH = Criterion(score, lambda ks, scores: choose_by_strength(ks, scores["prediction-strength"]))
