"""Rows of all processes, with gradient."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def world_size() -> int:
    """Processes that train together; 1 outside a group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor) -> Tensor:
    """(B, ...) of this process -> (B * world, ...) of all, in the order of ranks; every process has the same B.

    A loss of the gathered rows is the same on every process, and each sends its gradient to all. Averaged over
    processes, as data-parallel training averages, that is the gradient of the loss on one process with all rows.
    """
    return torch.cat(all_gather(rows)) if world_size() > 1 else rows
