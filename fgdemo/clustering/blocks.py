"""Rows that come block by block, several times over, and what is known of their classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch, class_groups, rows_of_classes
from fgdemo.clustering.checks import as_labels, as_rows
from fgdemo.clustering.class_sample import ClassSample
from fgdemo.clustering.ranks import Ranks
from fgdemo.errors import UserError

BLOCK_ROWS = 1 << 16


@dataclass(frozen=True)
class ArrayBlocks:
    """Consecutive rows of a (N, D) array with (N,) class ids, such as a memory-mapped .npy file, `size` at a time."""

    rows: Any
    labels: Any
    size: int = BLOCK_ROWS

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for start in range(0, len(self.rows), self.size):
            part = slice(start, start + self.size)
            yield self.rows[part], self.labels[part]


class Rows:
    """The blocks as tensors, and what is known of their classes.

    `averages` (C, D) of their rows in float64, and `origins`, what is subtracted: those, or 0 where spherical.
    """

    def __init__(self, blocks: Iterable[tuple[Any, Any]], *, spherical: bool, device: torch.device | None) -> None:
        self.blocks, self.spherical, self.device = blocks, spherical, device
        self.class_ids = np.zeros(0, np.int64)
        self.averages = self.origins = torch.zeros(0)

    def survey(self, sample: ClassSample, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """Count, average and sample; the sampled rows and their classes."""
        sums = torch.zeros(0, 0, dtype=torch.float64, device=self.device)
        counts = torch.zeros(0, dtype=torch.int64, device=self.device)
        seen = [np.zeros(0, np.int64)]
        for rows, labels in self:
            seen.append(labels)
            classes = torch.from_numpy(labels).to(rows.device)
            most = max(len(counts), int(labels.max()) + 1)
            sums, counts = _padded(sums.to(rows.device), counts.to(rows.device), most, rows.shape[1])
            sums.index_add_(0, classes, rows.double())
            counts += torch.bincount(classes, minlength=most)
            sample.add(rows.float(), classes)
        size = torch.tensor(sums.shape, device=sums.device)
        ranks.largest(size)
        most, dim = size.tolist()
        if not most:
            raise UserError("There are no rows to cluster.")
        sums, counts = _padded(sums, counts, most, dim)
        # a process may have no rows
        sample.add(sums.new_zeros(0, dim, dtype=torch.float32), counts.new_zeros(0))
        ranks.add(sums, counts)
        self.class_ids = np.concatenate(seen)
        self.averages = sums / counts[:, None]
        self.origins = torch.zeros_like(sums) if self.spherical else self.averages.nan_to_num()
        return sample.result(ranks)

    def __iter__(self) -> Iterator[tuple[Tensor, np.ndarray]]:
        """Rows (n, D), of unit norm where spherical, and their classes, block by block."""
        dim = None
        for given, labels in self.blocks:
            if not len(labels):
                continue
            rows = as_rows(given)
            classes = as_labels(labels, len(rows))
            self.device = rows.device if self.device is None else self.device
            dim = rows.shape[1] if dim is None else dim
            if rows.shape[1] != dim:
                raise UserError(f"A block has {rows.shape[1]} dimensions where those before have {dim}.")
            rows = rows.to(self.device)
            yield (torch.nn.functional.normalize(rows, dim=1) if self.spherical else rows), classes

    def batches(self, wanted: np.ndarray, columns: int) -> Iterator[tuple[Tensor, np.ndarray, Batch, bool]]:
        """(class ids, (C_b, n) places among all rows or -1, their batch, whether its block ends) of wanted classes."""
        seen = 0
        for rows, labels in self:
            if not np.array_equal(labels, self.class_ids[seen : seen + len(labels)]):
                raise UserError("blocks gave other rows than before: give what can be gone through again, as a list.")
            counts = np.bincount(labels, minlength=len(wanted))
            groups = class_groups(counts * wanted, columns, rows.shape[1], rows.device)
            for number, group in enumerate(groups):
                inside = rows_of_classes(labels, counts, group)
                ids = torch.from_numpy(group).to(rows.device)
                batch = self._batch(rows, torch.from_numpy(inside).to(rows.device), ids)
                yield ids, np.where(inside >= 0, inside + seen, -1), batch, number == len(groups) - 1
            seen += len(labels)
        if seen != len(self.class_ids):
            raise UserError("blocks ended sooner than before: give what can be gone through again, as a list.")

    def _batch(self, rows: Tensor, index: Tensor, ids: Tensor) -> Batch:
        """Rows of several classes around the means of all rows of the class, not of this block's."""
        x = rows.index_select(0, index.clamp(min=0).flatten()).view(*index.shape, rows.shape[1])
        means = self.origins[ids]
        x = (x - means[:, None].to(x.dtype)).float().masked_fill_((index < 0)[..., None], 0)
        square = torch.linalg.vector_norm(x, dim=2).square_()
        sizes = (index >= 0).sum(1)
        return Batch(x, means.float(), sizes, self.spherical, square, bool((index < 0).any()), gram=None)


def _padded(sums: Tensor, counts: Tensor, classes: int, dim: int) -> tuple[Tensor, Tensor]:
    """Sums (classes, dim) and counts (classes,), with zeros where there was nothing."""
    more = classes - len(counts)
    sums = torch.nn.functional.pad(sums, (0, dim - sums.shape[1], 0, more))
    return sums, torch.nn.functional.pad(counts, (0, more))
