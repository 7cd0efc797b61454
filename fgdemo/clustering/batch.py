"""Rows grouped by class in padded blocks, so that many small problems run as one batched operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK_VALUES = 1 << 24
"""Largest number of elements of a (problems, columns, rows) intermediate: 64 MiB in float32."""

CACHED_VALUES = 1 << 21
"""The same for a batch on a processor: what stays in its cache over the iterations is read from memory once."""

PADDING = 0.75
"""Classes share a block while the smallest has at least this share of the rows of the largest."""


@dataclass(frozen=True)
class Batch:
    """C classes of at most n rows each.

    Attributes:
        x: (C, n, D) float32; centred on each class's mean (or of unit norm where spherical), 0 in padded rows.
        mean: (C, D) in the precision of the given rows, what was subtracted; 0 where spherical.
        sizes: (C,) int64 number of rows.
        spherical: rows and centroids live on the unit sphere.
        square: (C, n) squared norms.
        padded: some class has fewer than n rows.
        gram: (C, n, n) inner products of the rows, or None where working on rows is cheaper.
    """

    x: Tensor
    mean: Tensor
    sizes: Tensor
    spherical: bool
    square: Tensor
    padded: bool
    gram: Tensor | None

    @property
    def mask(self) -> Tensor:
        """(C, n) True for real rows."""
        return torch.arange(self.x.shape[1], device=self.x.device) < self.sizes[:, None]

    def products(self, columns: Tensor) -> Tensor:
        """(C, T, n) inner products of (C, T, D) vectors with every row."""
        return torch.bmm(columns, self.x.transpose(1, 2))

    def take(self, classes: Tensor) -> Batch:
        """The batch of some of the classes."""
        gram = None if self.gram is None else self.gram[classes]
        return Batch(
            self.x[classes],
            self.mean[classes],
            self.sizes[classes],
            self.spherical,
            self.square[classes],
            self.padded,
            gram,
        )

    def row_blocks(self, columns: int) -> Iterator[slice]:
        """Ranges of rows for which a (C, columns, rows) intermediate stays within BLOCK_VALUES."""
        n = self.x.shape[1]
        step = max(1, BLOCK_VALUES // max(1, len(self.x) * columns))
        for start in range(0, n, step):
            yield slice(start, min(start + step, n))


def rows_at(x: Tensor, positions: Tensor) -> Tensor:
    """(C, m, D) rows of (C, n, D) at (C, m) positions."""
    offsets = torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
    return x.reshape(-1, x.shape[2])[positions + offsets]


def make_batch(x: Tensor, sizes: Tensor, *, spherical: bool = False) -> Batch:
    """A batch from (C, n, D) rows of any scale, whose rows beyond `sizes` are ignored.

    Rows are centred per class (in their own precision, before rounding to float32), because distances are
    computed as |x|² - 2x·c + |c|², which cancels badly far from the origin.
    """
    return _overwrite(x.clone(), sizes, spherical)


def _overwrite(x: Tensor, sizes: Tensor, spherical: bool) -> Batch:
    """The batch of rows that nobody else needs, in their memory where their precision allows."""
    padding = (torch.arange(x.shape[1], device=x.device) >= sizes[:, None])[..., None]
    padded = bool(padding.any())
    if padded:
        x.masked_fill_(padding, 0)
    if spherical:
        # a zero row has no direction: it stays zero, at distance 1 from every centroid
        x /= torch.linalg.vector_norm(x, dim=2, keepdim=True).clamp_(min=torch.finfo(x.dtype).tiny)
        mean = torch.zeros_like(x[:, 0])
    else:
        mean = x.sum(1) / sizes[:, None]
        x -= mean[:, None]
        if padded:
            x.masked_fill_(padding, 0)
    rows = x.float()
    square = torch.linalg.vector_norm(rows, dim=2).square_()
    # one product with the (n, n) inner products replaces two with the (n, D) rows in every later iteration
    gram = torch.bmm(rows, rows.transpose(1, 2)) if rows.shape[1] <= rows.shape[2] else None
    return Batch(rows, mean, sizes, spherical, square, padded, gram)


def class_groups(sizes: np.ndarray, columns: int, dim: int, device: torch.device) -> list[np.ndarray]:
    """Class ids in groups of similar size (largest first), each small enough for one batch. No empty classes.

    Args:
        sizes: (C,) rows of each class.
        columns: number of centroid columns per class that will be worked on at once.
        dim: D.
    """
    limit = CACHED_VALUES if device.type == "cpu" else BLOCK_VALUES
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    groups: list[np.ndarray] = []
    start = 0
    while start < len(order):
        largest = sizes[order[start]]
        fits = max(1, limit // int(largest * max(columns, dim)))
        alike = np.searchsorted(-sizes[order], -PADDING * largest, side="right")
        stop = min(start + fits, int(alike))
        groups.append(order[start:stop])
        start = stop
    return groups


def rows_of_classes(labels: np.ndarray, sizes: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(C_g, n) row indices of the classes of a group in order of appearance, -1 as padding."""
    order = np.argsort(labels, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    offsets = np.arange(sizes[group].max())
    inside = offsets < sizes[group][:, None]
    return np.where(inside, order[np.where(inside, starts[group][:, None] + offsets, 0)], -1)


def gather_batch(x: Tensor, rows: np.ndarray, *, spherical: bool = False) -> Batch:
    """The batch of the rows listed by `rows_of_classes`."""
    index = torch.from_numpy(rows).to(x.device)
    picked = x.index_select(0, index.clamp(min=0).flatten()).view(*index.shape, x.shape[1])
    return _overwrite(picked, (index >= 0).sum(1), spherical)
