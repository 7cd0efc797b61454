"""Lloyd's algorithm for all classes, all K and all restarts of a batch in the same operations.

A class's columns are ordered by K, then restart, then cluster: T = restarts * sum(ks) of them. A problem is one
(class, K, restart); there are P = len(ks) * restarts problems a class, ordered by K, then restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch

COMPACT = 0.75
"""Share of classes still moving at which the others leave the batch: copying costs a third of an iteration."""


def column_blocks(ks: tuple[int, ...], restarts: int) -> list[tuple[int, slice, slice]]:
    """For each K: (K, its problems, its columns)."""
    blocks = []
    column = 0
    for position, k in enumerate(ks):
        problems = slice(position * restarts, (position + 1) * restarts)
        blocks.append((k, problems, slice(column, column + restarts * k)))
        column += restarts * k
    return blocks


@lru_cache(maxsize=64)
def _first_columns(ks: tuple[int, ...], restarts: int, device: torch.device) -> Tensor:
    """(P, 1) int64: where each problem's columns begin."""
    starts = [columns.start + r * k for k, _, columns in column_blocks(ks, restarts) for r in range(restarts)]
    return torch.tensor(starts, device=device)[:, None]


def columns_of(labels: Tensor, ks: tuple[int, ...], restarts: int, *, padded: bool = True) -> Tensor:
    """(C, P, n) int64 column of each row's cluster; padded rows (label -1) go to a spare column T."""
    columns = labels + _first_columns(ks, restarts, labels.device)
    return torch.where(labels < 0, restarts * sum(ks), columns) if padded else columns


def one_hot(columns: Tensor, total: int) -> Tensor:
    """(C, T, n) float32 membership from (C, P, n) columns; what is in the spare column belongs nowhere."""
    classes, _, n = columns.shape
    members = torch.zeros(classes, total + 1, n, device=columns.device)
    return members.scatter_(1, columns, 1)[:, :total]


def sizes_of(columns: Tensor, total: int) -> Tensor:
    """(C, T) int64 cluster sizes of (C, P, n) columns."""
    flat = columns.flatten(1)
    return flat.new_zeros(len(flat), total + 1).scatter_add_(1, flat, torch.ones_like(flat))[:, :-1]


def scales(counts: Tensor, squared_sums: Tensor, spherical: bool) -> Tensor:
    """What turns the sum of a cluster's rows into its centroid: 1/size, or 1/|sum| on the sphere."""
    if spherical:
        return torch.where(squared_sums > 0, squared_sums.clamp(min=1e-30).rsqrt(), 0)
    return 1 / counts.clamp(min=1)


def nearest(distances: Tensor, ks: tuple[int, ...], restarts: int) -> tuple[Tensor, Tensor]:
    """Nearest centroid of every row in every problem; ties go to the lowest column.

    Args:
        distances: (C, T, n), up to a number of each row's own.

    Returns:
        labels (C, P, n) int64, and the distances (C, P, n) to them.
    """
    classes, _, n = distances.shape
    labels, least = [], []
    for k, _, columns in column_blocks(ks, restarts):
        given = distances[:, columns].view(classes, restarts, k, n)
        least.append(given.amin(2))
        # the lowest place of the least; torch's own argmin takes the numbers one by one
        places = torch.arange(k, 0, -1, device=given.device, dtype=torch.int32)[:, None]
        labels.append(k - ((given <= least[-1][:, :, None]) * places).amax(2))
    return torch.cat(labels, 1).long(), torch.cat(least, 1)


def relocate(labels: Tensor, distances: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Fill empty clusters: each takes the farthest member of the cluster with the largest inertia that can spare one.

    It lowers the inertia, so Lloyd's descent goes on from it.

    Args:
        labels: (m, n) int64 in [0, k), -1 in padded rows; at least k real rows each.
        distances: (m, n) squared distance to the own centroid.

    Returns:
        The new labels and distances (0 for the moved rows).
    """
    ids = torch.arange(k, device=labels.device, dtype=labels.dtype)[:, None]
    while True:
        members = labels[:, None] == ids
        counts = members.sum(2)
        needy = (counts == 0).any(1)
        if not needy.any():
            return labels, distances
        inertia = (members * distances[:, None]).sum(2).masked_fill(counts < 2, -1)
        donor = inertia.argmax(1, keepdim=True)
        row = torch.where(labels == donor, distances, -1).argmax(1, keepdim=True)
        empty = (counts == 0).int().argmax(1, keepdim=True)
        needy = needy[:, None]
        labels = labels.scatter(1, row, torch.where(needy, empty, labels.gather(1, row)))
        distances = distances.scatter(1, row, torch.where(needy, 0, distances.gather(1, row)))


@dataclass
class LloydResult:
    """labels (C, P, n) int64 without empty clusters; inertia (C, P) of the last assignment; iterations (C, P)."""

    labels: Tensor
    inertia: Tensor
    iterations: Tensor

    def best(self, restarts: int) -> LloydResult:
        """The restart of lowest inertia of every class and K: labels (C, M, n), inertia and iterations (C, M)."""
        shape = (len(self.labels), -1, restarts)
        found = self.inertia.view(shape).argmin(2, keepdim=True)
        labels = self.labels.view(*self.inertia.view(shape).shape, -1)
        return LloydResult(
            labels.gather(2, found[..., None].expand(-1, -1, 1, labels.shape[3]))[:, :, 0],
            self.inertia.view(shape).gather(2, found)[..., 0],
            self.iterations.view(shape).gather(2, found)[..., 0],
        )


def lloyd(
    batch: Batch,
    starts: Tensor,
    ks: tuple[int, ...],
    restarts: int,
    admissible: Tensor,
    *,
    max_iter: int,
    tol: float,
) -> LloydResult:
    """Alternate assignment and means until no label changes.

    A problem also stops when its inertia falls by no more than `tol` of itself. Each problem stops for itself and
    is frozen from then on, so its result does not depend on what it is batched with.

    Args:
        batch: C classes.
        starts: (C, T, D) starting centroids, in the batch's own (centred or unit) coordinates.
        admissible: (C, len(ks)) bool; problems of inadmissible pairs return meaningless labels. An admissible
            class has at least K rows.
    """
    device = batch.x.device
    shape = (len(batch.x), len(ks) * restarts)
    final = LloydResult(
        torch.full((*shape, batch.x.shape[1]), -1, device=device),
        torch.zeros(shape, device=device),
        torch.zeros(shape, dtype=torch.int64, device=device),
    )
    classes = torch.arange(len(batch.x), device=device)
    active = admissible.repeat_interleave(restarts, 1)
    labels, distances = assign_rows(batch, starts, ks, restarts)
    previous_labels = torch.full_like(labels, -1)
    previous_inertia = torch.full(labels.shape[:2], torch.inf, device=device)
    for iteration in range(max_iter + 1):
        labels, distances, columns, counts = _fill_empty(batch, labels, distances, ks, restarts, active)
        inertia = distances.sum(2)
        still = (labels != previous_labels).any(2) & (previous_inertia - inertia > tol * previous_inertia)
        still |= torch.isinf(previous_inertia)
        # a frozen problem keeps what it had
        frozen = ~active[..., None]
        labels = torch.where(frozen, previous_labels, labels)
        inertia = torch.where(active, inertia, previous_inertia)
        final.iterations[classes] += active & still
        active = active & still
        busy = active.any(1)
        moving = int(busy.sum())
        if iteration == max_iter or not moving:
            break
        if moving <= COMPACT * len(busy):
            final.labels[classes], final.inertia[classes] = labels, inertia
            batch, classes, active = batch.take(busy), classes[busy], active[busy]
            labels, inertia, columns, counts = labels[busy], inertia[busy], columns[busy], counts[busy]
        previous_labels, previous_inertia = labels, inertia
        labels, distances = _assign_to_means(batch, columns, counts, ks, restarts)
    final.labels[classes], final.inertia[classes] = labels, inertia
    return final


def _finish(batch: Batch, labels: Tensor, gaps: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    distances = (gaps + batch.square[:, None, rows]).clamp_(min=0)
    if not batch.padded:
        return labels, distances
    mask = batch.mask[:, None, rows]
    return torch.where(mask, labels, -1), torch.where(mask, distances, 0)


def gaps(batch: Batch, centroids: Tensor, rows: slice) -> Tensor:
    """(C, T, n') of |c|² - 2x·c: the squared distances of some rows, less |x|²."""
    squared = centroids.square().sum(2, keepdim=True)
    # a processor multiplies faster this way round, and takes minima faster the other
    products = torch.bmm(batch.x[:, rows], centroids.transpose(1, 2)).transpose(1, 2)
    return torch.add(squared, products, alpha=-2, out=products.new_empty(products.shape))


def assign_rows(batch: Batch, centroids: Tensor, ks: tuple[int, ...], restarts: int) -> tuple[Tensor, Tensor]:
    """Labels and squared distances of every row for explicit centroids."""
    parts = [
        _finish(batch, *nearest(gaps(batch, centroids, rows), ks, restarts), rows)
        for rows in batch.row_blocks(centroids.shape[1])
    ]
    return torch.cat([p[0] for p in parts], 2), torch.cat([p[1] for p in parts], 2)


def _assign_to_means(
    batch: Batch, columns: Tensor, counts: Tensor, ks: tuple[int, ...], restarts: int
) -> tuple[Tensor, Tensor]:
    """Labels and squared distances of every row for the centroids of the clusters that `columns` names."""
    if batch.gram is None:
        return assign_rows(batch, means(batch, columns, counts), ks, restarts)
    members = one_hot(columns, counts.shape[1])
    products = torch.bmm(members, batch.gram)
    squared = torch.linalg.vecdot(products, members).clamp_(min=0)
    scale = scales(counts, squared, batch.spherical)
    distances = products.mul_(-2 * scale[..., None]).add_((squared * scale.square())[..., None])
    return _finish(batch, *nearest(distances, ks, restarts), slice(0, batch.x.shape[1]))


def means(batch: Batch, columns: Tensor, counts: Tensor) -> Tensor:
    """Centroids (C, T, D), in the batch's coordinates, of the clusters of (C, P, n) columns with (C, T) sizes."""
    sums = sums_of(batch, columns, counts.shape[1])
    return sums.mul_(scales(counts, sums.square().sum(2), batch.spherical)[..., None])


def sums_of(batch: Batch, columns: Tensor, total: int) -> Tensor:
    """(C, T, D) float32 sums of the rows of each of (C, P, n) columns."""
    sums = batch.x.new_zeros(len(batch.x), total, batch.x.shape[2])
    for rows in batch.row_blocks(total):
        sums.baddbmm_(one_hot(columns[:, :, rows], total), batch.x[:, rows])
    return sums


def _fill_empty(
    batch: Batch, labels: Tensor, distances: Tensor, ks: tuple[int, ...], restarts: int, active: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Labels and distances without empty clusters in the active problems, their columns and sizes (C, T)."""
    total = restarts * sum(ks)
    columns = columns_of(labels, ks, restarts, padded=batch.padded)
    counts = sizes_of(columns, total)
    empty = counts == 0
    if not empty.any():
        return labels, distances, columns, counts
    labels, distances = labels.clone(), distances.clone()
    for k, problems, block in column_blocks(ks, restarts):
        short = empty[:, block].view(len(labels), restarts, k).any(2)
        classes, restart = (short & active[:, problems]).nonzero(as_tuple=True)
        if len(classes):
            at = (classes, restart + problems.start)
            labels[at], distances[at] = relocate(labels[at], distances[at], k)
    columns = columns_of(labels, ks, restarts, padded=batch.padded)
    return labels, distances, columns, sizes_of(columns, total)
