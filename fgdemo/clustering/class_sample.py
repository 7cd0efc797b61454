"""The same random rows of every class, in whatever order, blocks or processes the rows come."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.ranks import Ranks

HASH_VALUES = 1 << 22
"""Elements that are hashed at once: 32 MiB of int64."""


class ClassSample:
    """At most `limit` rows of each class: those whose content has the lowest hash, so equal rows are drawn together.

    Memory: twice `limit` rows a class, and one block.
    """

    def __init__(self, limit: int, seed: int) -> None:
        self.limit = limit
        self.generator = np.random.default_rng([seed, 5])
        self.factors: Tensor | None = None
        self.rows: list[Tensor] = []
        self.classes: list[Tensor] = []
        self.hashes: list[Tensor] = []
        self.ceiling: Tensor | None = None
        self.kept = self.waiting = 0

    def add(self, rows: Tensor, classes: Tensor) -> None:
        """Offer (n, D) float32 rows of (n,) int64 classes."""
        hashes = self._hash(rows)
        if self.ceiling is not None:
            known = classes < len(self.ceiling)
            ceiling = torch.where(known, self.ceiling[classes.clamp(max=len(self.ceiling) - 1)], _LARGEST)
            low = hashes < ceiling
            rows, classes, hashes = rows[low], classes[low], hashes[low]
        else:
            rows = rows.clone()
        self.rows.append(rows)
        self.classes.append(classes)
        self.hashes.append(hashes)
        self.waiting += len(rows)
        if self.waiting >= self.kept:
            self._thin_out()

    def result(self, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """Rows (m, D) and classes (m,) of all processes together, by class, then hash."""
        self._thin_out()
        self.rows, self.classes, self.hashes = (
            [ranks.joined(parts[0])] for parts in (self.rows, self.classes, self.hashes)
        )
        self._thin_out()
        return self.rows[0], self.classes[0]

    def _thin_out(self) -> None:
        rows, classes, hashes = torch.cat(self.rows), torch.cat(self.classes), torch.cat(self.hashes)
        order = hashes.argsort()
        order = order[classes[order].argsort(stable=True)]
        sizes = classes.bincount()
        starts = sizes.cumsum(0) - sizes
        place = torch.arange(len(order), device=order.device) - starts[classes[order]]
        kept = order[place < self.limit]
        self.rows, self.classes, self.hashes = [rows[kept]], [classes[kept]], [hashes[kept]]
        full = sizes >= self.limit
        last = sizes.clamp(max=self.limit).cumsum(0) - 1
        self.ceiling = torch.where(full, self.hashes[0][last.clamp(min=0)], _LARGEST)
        self.kept, self.waiting = len(kept), 0

    def _hash(self, rows: Tensor) -> Tensor:
        """(n,) int64 hash of each row's bits: a random linear combination, mixed as in SplitMix64."""
        if self.factors is None:
            drawn = self.generator.integers(-(2**63), 2**63 - 1, rows.shape[1], dtype=np.int64)
            self.factors = torch.from_numpy(drawn | 1).to(rows.device)
        bits = rows.contiguous().view(torch.int32)
        step = max(1, HASH_VALUES // rows.shape[1])
        mixed = torch.cat([(part.long() * self.factors).sum(1) for part in bits.split(step)])
        for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
            mixed = (mixed ^ (mixed >> shift)) * factor
        return mixed ^ (mixed >> 31)


_LARGEST = torch.iinfo(torch.int64).max
