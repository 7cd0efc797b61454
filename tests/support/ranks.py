"""Several processes of one `torch.distributed` group, as a test's subject."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_ranks(count: int, folder: Path, work: Callable[..., Any], *given: Any) -> list[Any]:
    """What `work(rank, count, *given)` returns in each of `count` processes (arrays and plain values)."""
    store = folder / f"store-{count}"
    mp.spawn(_process, (count, str(store), str(folder), work, given), nprocs=count)
    return [torch.load(folder / f"result-{count}-{rank}.pt", weights_only=False) for rank in range(count)]


def _process(rank: int, count: int, store: str, folder: str, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    try:
        torch.save(work(rank, count, *given), Path(folder) / f"result-{count}-{rank}.pt")
    finally:
        dist.destroy_process_group()
