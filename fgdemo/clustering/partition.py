"""From a batch of classes to the best partition of each class under each K, and what is measured on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch, rows_at
from fgdemo.clustering.lloyd import column_blocks, columns_of, gaps, lloyd, means, nearest, sizes_of
from fgdemo.clustering.principal import principal_starts
from fgdemo.clustering.seeding import draws, seed_centroids, seed_rows

RESTARTS = 3
MAX_ITER = 100
TOL = 1e-6
"""Defaults of every engine: starts, Lloyd iterations, relative fall of the inertia that counts as none."""

PRINCIPAL_FROM = 3
"""Of so many starts or more, the last is not seeded but comes from the leading components (principal.py). It takes as
long as several seedings, and pays where a class has fewer rows than dimensions."""

CANCELLING = 1e-3
"""Share of the class's variance below which |x|² - 2x·c + |c|² has lost three of its seven digits."""


def partition(
    batch: Batch,
    ks: tuple[int, ...],
    admissible: Tensor,
    uniform: Tensor,
    *,
    principal: bool = False,
    init: Tensor | None = None,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
) -> tuple[Tensor, int]:
    """Best of the starts of every class under every K.

    Args:
        batch: C classes.
        ks: candidates.
        admissible: (C, len(ks)) bool.
        uniform: (C, max(ks), seedings, trials) random numbers, as `start_draws` gives them.
        principal: start from the leading components as well.
        init: (C, sum(ks), D) starting centroids in the rows' original coordinates; a (class, K) with a NaN starts
            from a seeding. With it there is one start only.

    Returns:
        labels (C, len(ks), n) int64, -1 in padded rows and inadmissible pairs, and the most iterations of a kept
        start.
    """
    known = init is not None and bool(torch.isfinite(init).all())
    if init is None:
        starts = all_starts(batch, ks, admissible, uniform, principal, max_iter=max_iter, tol=tol)
    else:
        starts = init if known else seed_centroids(batch, seed_rows(batch, uniform[:, :, :1]), ks)
        starts = _override(starts, init, batch, ks)
    restarts = starts.shape[1] // sum(ks)
    found = lloyd(batch, starts, ks, restarts, admissible, max_iter=max_iter, tol=tol)
    best = found.best(restarts)
    return best.labels, int(best.iterations.max())


def start_draws(seed: int, problems: int, k: int, starts: int) -> tuple[np.ndarray, bool]:
    """Numbers for `partition`, and whether one of that many starts is to come from the leading components."""
    principal = starts >= PRINCIPAL_FROM
    return draws(seed, problems, k, starts - principal), principal


def all_starts(
    batch: Batch,
    ks: tuple[int, ...],
    admissible: Tensor,
    uniform: Tensor,
    principal: bool,
    *,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
) -> Tensor:
    """(C, starts * sum(ks), D), columns ordered by K, start, cluster: those of the seedings and, where it is asked for
    and there are dimensions to leave out, one from the leading components."""
    seeded = seed_centroids(batch, seed_rows(batch, uniform), ks)
    if not principal or not 1 < max(ks) <= batch.x.shape[2]:
        return seeded
    leading = principal_starts(batch, ks, admissible, uniform, max_iter=max_iter, tol=tol)
    blocks = zip(column_blocks(ks, uniform.shape[2]), column_blocks(ks, 1), strict=True)
    return torch.cat([t for (_, _, a), (_, _, b) in blocks for t in (seeded[:, a], leading[:, b])], 1)


def _override(starts: Tensor, init: Tensor, batch: Batch, ks: tuple[int, ...]) -> Tensor:
    if batch.spherical:
        init = torch.nn.functional.normalize(init, dim=2)
    init = (init - batch.mean[:, None]).float()
    starts = starts.float().clone()
    for _, _, columns in column_blocks(ks, 1):
        known = torch.isfinite(init[:, columns]).all(2).all(1)
        starts[known, columns] = init[known, columns]
    return starts


@dataclass(frozen=True)
class Measures:
    """Of a batch's labels: centroids (C, sum(ks), D) in the rows' original coordinates, sizes (C, sum(ks)) int64,
    inertia and simplified silhouette (C, len(ks)) float64."""

    centroids: Tensor
    sizes: Tensor
    inertia: Tensor
    silhouette: Tensor


def measure(batch: Batch, labels: Tensor, ks: tuple[int, ...]) -> Measures:
    """Centroids as means of the labelled rows, their inertia, and the simplified silhouette.

    Distances come from inner products. Where clusters are so tight that these cancel, the class is measured once more
    by direct differences.
    """
    columns = columns_of(labels, ks, 1)
    sizes = sizes_of(columns, sum(ks))
    centroids = means(batch, columns, sizes)
    inertia, silhouette = _spread(batch, labels, ks, centroids, sizes, exact=False)
    total = batch.square.sum(1, dtype=torch.float64)
    tight = (inertia <= CANCELLING * total[:, None]).any(1).nonzero()[:, 0]
    if len(tight):
        inertia[tight], silhouette[tight] = _spread(
            batch.take(tight), labels[tight], ks, centroids[tight], sizes[tight], exact=True
        )
    return Measures((centroids + batch.mean[:, None]).float(), sizes, inertia, silhouette)


def _spread(
    batch: Batch, labels: Tensor, ks: tuple[int, ...], centroids: Tensor, sizes: Tensor, *, exact: bool
) -> tuple[Tensor, Tensor]:
    """Inertia and simplified silhouette (C, M) float64; `exact` subtracts rows and own centroids one by one."""
    inertia = torch.zeros(labels.shape[:2], dtype=torch.float64, device=labels.device)
    silhouette = torch.zeros_like(inertia)
    for rows in batch.row_blocks(max(centroids.shape[1:]) if exact else centroids.shape[1]):
        distances = gaps(batch, centroids, rows).add_(batch.square[:, None, rows]).clamp_(min=0)
        for position, (k, _, columns) in enumerate(column_blocks(ks, 1)):
            own = labels[:, position, rows]
            real = own >= 0
            own = own.clamp(min=0)
            if exact:
                gap = torch.linalg.vector_norm(batch.x[:, rows] - rows_at(centroids[:, columns], own), dim=2).square_()
            else:
                gap = distances[:, columns].gather(1, own[:, None])[:, 0]
            gap = torch.where(real, gap, 0)
            inertia[:, position] += gap.sum(1, dtype=torch.float64)
            if k > 1:
                others = distances[:, columns].scatter(1, own[:, None], torch.inf).amin(1)
                alone = sizes[:, columns].gather(1, own) < 2
                widths = _widths(gap.sqrt_(), others.sqrt_(), real & ~alone)
                silhouette[:, position] += widths.sum(1, dtype=torch.float64)
    return inertia, silhouette / batch.sizes[:, None].clamp(min=1)


def _widths(a: Tensor, b: Tensor, counted: Tensor) -> Tensor:
    """Silhouette width of each row from its distances to its own and the nearest other centroid."""
    return torch.where(counted, (b - a) / torch.maximum(a, b).clamp(min=1e-30), 0)


def assign(batch: Batch, centroids: Tensor, ks: tuple[int, ...]) -> Tensor:
    """(C, len(ks), n) int64 nearest centroid for (C, sum(ks), D) centroids in original coordinates; -1 padding."""
    centred = (centroids - batch.mean[:, None]).float()
    parts = [nearest(gaps(batch, centred, rows), ks, 1)[0] for rows in batch.row_blocks(centred.shape[1])]
    return torch.where(batch.mask[:, None], torch.cat(parts, 2), -1)
