"""Lloyd's algorithm for all classes, all K and all restarts of a batch in the same operations.

A class's columns are ordered by K, then restart, then cluster: T = restarts * sum(ks) of them. A problem is one
(class, K, restart); there are P = len(ks) * restarts problems a class, ordered by K, then restart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch


def column_blocks(ks: tuple[int, ...], restarts: int) -> list[tuple[int, slice, slice]]:
    """For each K: (K, its problems, its columns)."""
    blocks = []
    column = 0
    for position, k in enumerate(ks):
        problems = slice(position * restarts, (position + 1) * restarts)
        blocks.append((k, problems, slice(column, column + restarts * k)))
        column += restarts * k
    return blocks


def one_hot(labels: Tensor, ks: tuple[int, ...], restarts: int) -> Tensor:
    """(C, T, n) float32 membership from (C, P, n) labels; padded rows (label -1) belong nowhere."""
    classes, _, n = labels.shape
    parts = []
    for k, problems, _ in column_blocks(ks, restarts):
        ids = torch.arange(k, device=labels.device, dtype=labels.dtype)
        parts.append((labels[:, problems, None] == ids[:, None]).view(classes, restarts * k, n))
    return torch.cat(parts, 1).float()


def scales(counts: Tensor, squared_sums: Tensor, spherical: bool) -> Tensor:
    """What turns the sum of a cluster's rows into its centroid: 1/size, or 1/|sum| on the sphere."""
    if spherical:
        return torch.where(squared_sums > 0, squared_sums.clamp(min=1e-30).rsqrt(), 0)
    return 1 / counts.clamp(min=1)


def nearest(products: Tensor, squared_centroids: Tensor, ks: tuple[int, ...], restarts: int) -> tuple[Tensor, Tensor]:
    """Nearest centroid of every row in every problem; ties go to the lowest column.

    Args:
        products: (C, T, n) inner products of centroids and rows; overwritten.
        squared_centroids: (C, T).

    Returns:
        labels (C, P, n) int32, and |c|² - 2x·c (C, P, n), which is the squared distance less |x|².
    """
    classes, _, n = products.shape
    distances = products.mul_(-2).add_(squared_centroids[..., None])
    labels, gaps = [], []
    for k, _, columns in column_blocks(ks, restarts):
        gap, label = distances[:, columns].view(classes, restarts, k, n).min(2)
        labels.append(label.int())
        gaps.append(gap)
    return torch.cat(labels, 1), torch.cat(gaps, 1)


def relocate(labels: Tensor, distances: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Fill empty clusters: each takes the farthest member of the cluster with the largest inertia that can spare one.

    It lowers the inertia, so Lloyd's descent goes on from it.

    Args:
        labels: (m, n) int32 in [0, k), -1 in padded rows; at least k real rows each.
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
        empty = (counts == 0).int().argmax(1, keepdim=True).int()
        needy = needy[:, None]
        labels = labels.scatter(1, row, torch.where(needy, empty, labels.gather(1, row)))
        distances = distances.scatter(1, row, torch.where(needy, 0, distances.gather(1, row)))


@dataclass
class LloydResult:
    """labels (C, P, n) int32 without empty clusters; inertia (C, P) of the last assignment; iterations (C, P)."""

    labels: Tensor
    inertia: Tensor
    iterations: Tensor


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
        torch.full((*shape, batch.x.shape[1]), -1, dtype=torch.int32, device=device),
        torch.zeros(shape, device=device),
        torch.zeros(shape, dtype=torch.int64, device=device),
    )
    classes = torch.arange(len(batch.x), device=device)
    active = admissible.repeat_interleave(restarts, 1)
    labels, distances = _assign_to(batch, starts, ks, restarts)
    previous_labels, previous_inertia = torch.full_like(labels, -1), torch.full_like(labels[..., 0].float(), torch.inf)
    for iteration in range(max_iter + 1):
        labels, distances = _fill_empty(labels, distances, ks, restarts, active)
        inertia = distances.sum(2)
        still = (labels != previous_labels).any(2) & (previous_inertia - inertia > tol * previous_inertia)
        still |= torch.isinf(previous_inertia)
        # a frozen problem keeps what it had
        labels = torch.where(active[..., None], labels, previous_labels)
        inertia = torch.where(active, inertia, previous_inertia)
        final.iterations[classes] += active & still
        active = active & still
        busy = active.any(1)
        if iteration == max_iter or not busy.any():
            break
        if busy.sum() <= len(busy) // 2:
            final.labels[classes], final.inertia[classes] = labels, inertia
            batch, classes, active = batch.take(busy), classes[busy], active[busy]
            labels, inertia = labels[busy], inertia[busy]
        previous_labels, previous_inertia = labels, inertia
        labels, distances = _assign_to_means(batch, labels, ks, restarts)
    final.labels[classes], final.inertia[classes] = labels, inertia
    return final


def _finish(batch: Batch, labels: Tensor, gaps: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    mask = batch.mask[:, None, rows]
    distances = (gaps + batch.square[:, None, rows]).clamp_(min=0)
    return torch.where(mask, labels, -1), torch.where(mask, distances, 0)


def _assign_to(batch: Batch, centroids: Tensor, ks: tuple[int, ...], restarts: int) -> tuple[Tensor, Tensor]:
    """Labels and squared distances of every row for explicit centroids."""
    squared = centroids.square().sum(2)
    parts = []
    for rows in batch.row_blocks(centroids.shape[1]):
        products = torch.bmm(centroids, batch.x[:, rows].transpose(1, 2))
        parts.append(_finish(batch, *nearest(products, squared, ks, restarts), rows))
    return torch.cat([p[0] for p in parts], 2), torch.cat([p[1] for p in parts], 2)


def _assign_to_means(batch: Batch, labels: Tensor, ks: tuple[int, ...], restarts: int) -> tuple[Tensor, Tensor]:
    """Labels and squared distances of every row for the centroids of the given labels."""
    if batch.gram is None:
        return _assign_to(batch, means(batch, labels, ks, restarts)[0], ks, restarts)
    members = one_hot(labels, ks, restarts)
    products = torch.bmm(members, batch.gram)
    squared = torch.linalg.vecdot(products, members).clamp_(min=0)
    scale = scales(members.sum(2), squared, batch.spherical)
    products.mul_(scale[..., None])
    everything = slice(0, batch.x.shape[1])
    return _finish(batch, *nearest(products, squared * scale.square(), ks, restarts), everything)


def means(batch: Batch, labels: Tensor, ks: tuple[int, ...], restarts: int) -> tuple[Tensor, Tensor]:
    """Centroids (C, T, D), in the batch's coordinates, and sizes (C, T) of the clusters of (C, P, n) labels."""
    columns = restarts * sum(ks)
    sums = batch.x.new_zeros(len(batch.x), columns, batch.x.shape[2])
    counts = batch.x.new_zeros(len(batch.x), columns)
    for rows in batch.row_blocks(columns):
        members = one_hot(labels[:, :, rows], ks, restarts)
        sums.baddbmm_(members, batch.x[:, rows])
        counts += members.sum(2)
    scale = scales(counts, sums.square().sum(2), batch.spherical)
    return sums * scale[..., None], counts.long()


def sizes_of(labels: Tensor, ks: tuple[int, ...], restarts: int) -> Tensor:
    """(C, T) int64 cluster sizes of (C, P, n) labels."""
    offsets = [column.start + r * k for k, _, column in column_blocks(ks, restarts) for r in range(restarts)]
    columns = labels + torch.tensor(offsets, device=labels.device, dtype=labels.dtype)[:, None]
    padding = restarts * sum(ks)
    columns = torch.where(labels < 0, padding, columns).flatten(1).long()
    counts = columns.new_zeros(len(labels), padding + 1)
    return counts.scatter_add_(1, columns, torch.ones_like(columns))[:, :-1]


def _fill_empty(
    labels: Tensor, distances: Tensor, ks: tuple[int, ...], restarts: int, active: Tensor
) -> tuple[Tensor, Tensor]:
    empty = sizes_of(labels, ks, restarts) == 0
    if not empty.any():
        return labels, distances
    labels, distances = labels.clone(), distances.clone()
    for k, problems, columns in column_blocks(ks, restarts):
        short = empty[:, columns].view(len(labels), restarts, k).any(2)
        classes, restart = (short & active[:, problems]).nonzero(as_tuple=True)
        if len(classes):
            at = (classes, restart + problems.start)
            labels[at], distances[at] = relocate(labels[at], distances[at], k)
    return labels, distances
