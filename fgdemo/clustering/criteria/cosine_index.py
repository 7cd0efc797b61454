"""The cosine cluster index of FGDCC, with its sign as published and corrected.

S is the mean cosine between the centroids of a class, C the sum over its rows of the cosine to their own centroid; the
index is S / (C + S). Low S (centroids apart) and high C (compact clusters) are good, so a good K has a low index; the
published method takes the K with the highest. It knows no K = 1: some K > 1 is chosen wherever one is admissible. And
cosines need classes that lie off the origin, as features after a ReLU do: around it S has no fixed sign, and neither
end of the index says anything.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fgdemo.clustering.criteria.division import Criterion, Division
from fgdemo.clustering.lloyd import column_blocks


def cosine_index(division: Division) -> Tensor:
    """(C, M) float64 index of every class under every K; NaN for K = 1.

    Cosines are taken in the coordinates that the rows were given in (of the unit-norm rows where spherical).
    """
    batch = division.batch
    mean = batch.mean.float()
    directions = normalize(division.measures.centroids, dim=2)
    lengths = batch.square + 2 * torch.bmm(batch.x, mean[..., None])[..., 0]
    lengths += mean.square().sum(1, keepdim=True)
    # a row at the origin has no direction, and what cancels to it no digits: its cosines come out as 0
    floor = 1e-5 * (batch.square + mean.square().sum(1, keepdim=True)) + torch.finfo(lengths.dtype).tiny
    lengths = torch.maximum(lengths, floor).sqrt()
    compact = torch.zeros(division.labels.shape[:2], dtype=torch.float64, device=batch.x.device)
    offset = torch.bmm(directions, mean[..., None])
    for rows in batch.row_blocks(directions.shape[1]):
        cosines = torch.baddbmm(offset, directions, batch.x[:, rows].transpose(1, 2)) / lengths[:, None, rows]
        for position, (_, _, columns) in enumerate(column_blocks(division.ks, 1)):
            own = division.labels[:, position, rows]
            mine = cosines[:, columns].gather(1, own.clamp(min=0)[:, None])[:, 0]
            compact[:, position] += torch.where(own >= 0, mine, 0).sum(1, dtype=torch.float64)
    result = torch.full_like(compact, torch.nan)
    for position, (k, _, columns) in enumerate(column_blocks(division.ks, 1)):
        if k > 1:
            # the sum over all ordered pairs is the squared length of the sum, each direction with itself left out
            total = directions[:, columns].double().sum(1).square().sum(1)
            apart = (total - k) / (k * (k - 1))
            result[:, position] = apart / (compact[:, position] + apart)
    return result


def _choose(ks: tuple[int, ...], scores: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    known = ~np.isnan(scores)
    best = np.where(known, scores, -np.inf).argmax(1)
    # the silhouette is known wherever a K is admissible, K = 1 included
    fallback = np.where(np.isnan(silhouette), -1, np.arange(len(ks))).max(1)
    return np.where(known.any(1), best, fallback)


COSINE_INDEX = Criterion(
    lambda division: {"cosine-index": -cosine_index(division)},
    lambda ks, scores: _choose(ks, scores["cosine-index"], scores["silhouette"]),
)
COSINE_INDEX_AS_PUBLISHED = Criterion(
    lambda division: {"cosine-index-as-published": cosine_index(division)},
    lambda ks, scores: _choose(ks, scores["cosine-index-as-published"], scores["silhouette"]),
)
