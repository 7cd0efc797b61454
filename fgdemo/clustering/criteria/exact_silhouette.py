"""Silhouette (Rousseeuw, 1987) by distances between rows, on a sample, against a structureless reference.

The simplified silhouette of silhouette.py asks how far the centroids are; this one how far the rows are, on average, of
the own and of the nearest other cluster, so elongated or uneven clusters count as what they are. It is quadratic in the
rows, so classes above EXACT_ROWS rows are scored on so many of them. References and rule are those of silhouette.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fgdemo.clustering.batch import BLOCK_VALUES, Batch, rows_at
from fgdemo.clustering.criteria.division import Criterion, Division
from fgdemo.clustering.criteria.reference import stand_ins, stratified
from fgdemo.clustering.criteria.silhouette import choose_by_silhouette
from fgdemo.clustering.lloyd import column_blocks, columns_of, one_hot

EXACT_ROWS = 512

NAME = "exact-silhouette"


def score(division: Division) -> dict[str, Tensor]:
    """The silhouette, and mean and standard deviation of its reference."""
    references = torch.stack(
        [exact_silhouette(batch, labels, division.ks, division.seed) for batch, labels in stand_ins(division)]
    )
    return {
        NAME: exact_silhouette(division.flat, division.labels, division.ks, division.seed),
        f"{NAME}_reference": references.mean(0),
        f"{NAME}_deviation": references.std(0),
    }


def exact_silhouette(batch: Batch, labels: Tensor, ks: tuple[int, ...], seed: int) -> Tensor:
    """(C, M) float64 mean silhouette of (C, M, n) labels, 0 for K = 1; a row alone in its cluster counts 0."""
    index, real = stratified(batch.sizes, EXACT_ROWS, seed)
    result = torch.zeros(labels.shape[:2], dtype=torch.float64, device=labels.device)
    step = max(1, BLOCK_VALUES // index.shape[1] ** 2)
    for start in range(0, len(index), step):
        part = slice(start, start + step)
        rows = rows_at(batch.x[part], index[part])
        distances = torch.cdist(rows, rows)
        # rounding leaves a row a little apart from itself
        distances.diagonal(dim1=1, dim2=2).zero_()
        own = labels[part].gather(2, index[part][:, None].expand(-1, len(ks), -1))
        own = torch.where(real[part][:, None], own, -1)
        members = one_hot(columns_of(own, ks, 1), sum(ks))
        totals, counts = torch.bmm(members, distances), members.sum(2)
        for position, (k, _, columns) in enumerate(column_blocks(ks, 1)):
            if k > 1:
                widths = _widths(totals[:, columns], counts[:, columns], own[:, position])
                result[part, position] = widths.sum(1, dtype=torch.float64) / real[part].sum(1).clamp(min=1)
    return result


def _widths(totals: Tensor, counts: Tensor, own: Tensor) -> Tensor:
    """(C, n) widths from (C, k, n) summed distances to the clusters of (C, k) sizes; 0 where undefined."""
    mine = own.clamp(min=0)[:, None]
    others = (totals / counts[..., None]).masked_fill(counts[..., None] == 0, torch.inf)
    b = others.scatter(1, mine, torch.inf).amin(1)
    size = counts.gather(1, mine[:, 0])
    a = totals.gather(1, mine)[:, 0] / (size - 1).clamp(min=1)
    counted = (own >= 0) & (size > 1) & torch.isfinite(b)
    return torch.where(counted, (b - a) / torch.maximum(a, b).clamp(min=1e-30), 0)


EXACT_SILHOUETTE = Criterion(
    score,
    lambda ks, scores: choose_by_silhouette(ks, scores[NAME], scores[f"{NAME}_reference"], scores[f"{NAME}_deviation"]),
)
