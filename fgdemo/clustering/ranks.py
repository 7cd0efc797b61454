"""What several processes of one training job have to tell each other while they cluster together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """The processes of a `torch.distributed` group, or this process alone where `group` is None."""

    group: Any = None

    @property
    def alone(self) -> bool:
        return self.group is None

    @property
    def rank(self) -> int:
        return 0 if self.alone else dist.get_rank(self.group)

    def add(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over the processes."""
        self._reduce(tensors, dist.ReduceOp.SUM)

    def largest(self, *tensors: Tensor) -> None:
        """Replace each tensor by its largest value over the processes."""
        self._reduce(tensors, dist.ReduceOp.MAX)

    def from_first(self, *tensors: Tensor) -> None:
        """Replace each tensor by that of the group's first process."""
        if not self.alone:
            for tensor in tensors:
                dist.broadcast(tensor, dist.get_global_rank(self.group, 0), group=self.group)

    def joined(self, rows: Tensor) -> Tensor:
        """The (n, ...) rows of all processes one after the other; n may differ, the rest may not."""
        if self.alone:
            return rows
        counts = torch.zeros(dist.get_world_size(self.group), dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        self.add(counts)
        padded = rows.new_zeros(int(counts.max()), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)])

    def _reduce(self, tensors: tuple[Tensor, ...], operation: Any) -> None:
        if not self.alone:
            for tensor in tensors:
                dist.all_reduce(tensor, operation, group=self.group)
