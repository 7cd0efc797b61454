"""Greedy k-means++ for many problems at once.

D. Arthur and S. Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007 (the greedy variant of
section 5: several candidates a step, the one that lowers the potential most is kept).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch, make_batch, rows_at

SEED_ROWS = 1 << 14
"""Seeds of a larger problem are drawn from this many of its rows: seeding costs K passes over the rows."""


def draws(seed: int, problems: int, k: int, restarts: int) -> np.ndarray:
    """(problems, k, restarts, trials) uniform numbers; more problems or restarts leave those of the first unchanged."""
    trials = 2 + int(math.log(k))
    tables = [np.random.default_rng([seed, 0, r]).random((problems, k, trials)) for r in range(restarts)]
    return np.stack(tables, 2)


def seed_rows(batch: Batch, uniform: Tensor) -> Tensor:
    """Positions of the seed rows of every class.

    Seeds are nested: the first K of them are a k-means++ seeding for K, so one run serves every K.

    Args:
        batch: C classes.
        uniform: (C, k, restarts, trials) float64 numbers in [0, 1).

    Returns:
        (C, restarts, k) int64 row positions.
    """
    n = batch.x.shape[1]
    rows = max(SEED_ROWS, 8 * uniform.shape[1])
    if n <= rows:
        return _seed(batch, uniform)
    generator = torch.Generator().manual_seed(int(uniform[0, 0, 0, 0].item() * 2**53))
    share = torch.rand(rows, generator=generator, dtype=torch.float64).to(batch.x.device)
    picked = (share * batch.sizes[:, None]).long()
    sizes = torch.full_like(batch.sizes, rows)
    sample = make_batch(rows_at(batch.x, picked), sizes, spherical=batch.spherical)
    positions = _seed(sample, uniform)
    return picked.gather(1, positions.flatten(1)).view_as(positions)


def seed_centroids(batch: Batch, positions: Tensor, ks: tuple[int, ...]) -> Tensor:
    """(C, restarts * sum(ks), D) starting centroids, columns ordered by K, restart, cluster."""
    picked = torch.cat([positions[:, :, :k].flatten(1) for k in ks], 1)
    return rows_at(batch.x, picked)


def _products(batch: Batch, positions: Tensor) -> Tensor:
    """(C, m, n) inner products of the rows at (C, m) positions with every row."""
    if batch.gram is not None:
        return rows_at(batch.gram, positions)
    return batch.products(rows_at(batch.x, positions))


def _seed(batch: Batch, uniform: Tensor) -> Tensor:
    k = uniform.shape[1]
    n = batch.x.shape[1]
    last = (batch.sizes - 1)[:, None, None]

    def distances(positions: Tensor) -> Tensor:
        """(C, restarts, m, n) squared distances from (C, restarts, m) rows to every row."""
        flat = positions.flatten(1)
        own = batch.square.gather(1, flat)[..., None]
        d = own + batch.square[:, None] - 2 * _products(batch, flat)
        return d.clamp_(min=0).view(*positions.shape, n)

    first = torch.minimum((uniform[:, 0, :, :1] * batch.sizes[:, None, None]).long(), last)
    chosen = [first[..., 0]]
    closest = torch.where(batch.mask[:, None], distances(first)[:, :, 0], 0)
    for step in range(1, k):
        cumulated = closest.cumsum(2, dtype=torch.float64)
        target = uniform[:, step] * cumulated[..., -1:]
        # right=True skips rows at distance 0, so a row is never drawn twice while others remain
        candidates = torch.minimum(torch.searchsorted(cumulated, target, right=True), last)
        lowered = torch.minimum(distances(candidates), closest[:, :, None])
        best = lowered.sum(3).argmin(2, keepdim=True)
        chosen.append(candidates.gather(2, best)[..., 0])
        closest = lowered.gather(2, best[..., None].expand(-1, -1, -1, n))[:, :, 0]
    return torch.stack(chosen, 2)
