"""The numbers of clusters that are tried: which are, which a class admits, which one is taken."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch
from fgdemo.clustering.checks import as_count
from fgdemo.errors import UserError

MAX_K = 12
MIN_SIZE = 2
"""Defaults: candidates are 1 to MAX_K; K needs MIN_SIZE rows a cluster on average."""

DISTINCT = 1e-6
"""Rows whose random projections differ by less than this share of the class's radius count as one."""
APART = 1e-3
"""The same share, where single precision is enough to tell."""


def as_candidates(ks: Iterable[int] | None, largest: int, max_k: int, min_size: int) -> tuple[int, ...]:
    """The candidates, ascending; by default 1 to max_k, as far as a class of the largest size admits.

    Raises:
        UserError: none given, or one that is no number from 1 to `largest`.
    """
    if ks is None:
        return tuple(range(1, max(1, min(max_k, largest // min_size)) + 1))
    listed = [as_count(k, "each of ks", 1, largest) for k in ks]
    if not listed:
        raise UserError("ks is empty: give at least one number of clusters.")
    return tuple(sorted(set(listed)))


def admissible_ks(batch: Batch, ks: tuple[int, ...], min_size: int, seed: int) -> Tensor:
    """(C, M) bool: enough rows, and enough distinct ones."""
    direction = torch.from_numpy(np.random.default_rng([seed, 3]).standard_normal(batch.x.shape[2])).to(batch.x.device)
    # single precision tells rows apart that are not almost equal; only what is left needs twice the memory
    distinct = _distinct(batch, batch.x @ direction.float(), APART)
    close = (distinct < max(ks)).nonzero()[:, 0]
    if len(close):
        few = batch.take(close)
        distinct[close] = _distinct(few, few.x.double() @ direction, DISTINCT)
    wanted = torch.tensor(ks, device=batch.x.device)
    large_enough = (batch.sizes[:, None] >= wanted * min_size) | (wanted == 1)
    return (distinct[:, None] >= wanted) & large_enough


def _distinct(batch: Batch, shadow: Tensor, tolerance: float) -> Tensor:
    """(C,) rows of each class whose (C, n) shadows differ by more than this share of the class's radius."""
    shadow = torch.where(batch.mask, shadow, torch.inf).sort(1).values
    radius = (batch.square.sum(1, dtype=torch.float64) / batch.sizes).sqrt()
    gaps = shadow.diff(dim=1)
    return 1 + ((gaps > tolerance * radius[:, None]) & torch.isfinite(gaps)).sum(1)


def largest_up_to(k: int, ks: tuple[int, ...], known: np.ndarray) -> np.ndarray:
    """(C,) position of the largest candidate up to k among the (C, M) known ones of each class; -1 if none is."""
    return np.where(known & (np.array(ks) <= k), np.arange(len(ks)), -1).max(1)


def chosen_ks(position: np.ndarray, ks: tuple[int, ...], sizes: np.ndarray) -> np.ndarray:
    """(C,) int64 K at (C,) positions in ks: 1 where the position is -1, 0 where the class has no rows."""
    return np.where(sizes > 0, np.where(position >= 0, np.array(ks)[position], 1), 0)
