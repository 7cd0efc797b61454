"""Independent computations on several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def worker_map(items: int, device: torch.device) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` for so many items, which on a processor shares them out among the threads that torch may use.

    An operation on small tensors that torch itself splits over threads waits each time for the slowest of them. Items
    that have begun are finished when the block ends early, others are not begun.
    """
    threads = torch.get_num_threads()
    workers = min(threads, items) if device.type == "cpu" else 1
    if workers < 2:
        yield map
        return
    # threads begun from now on compute with so many
    torch.set_num_threads(threads // workers)
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
