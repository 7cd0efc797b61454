"""A method run on some rows, carried over to all of them."""

from __future__ import annotations

import numpy as np
import torch

BLOCK_DISTANCES = 1 << 24


def sample_rows(n: int, limit: int, seed: int) -> np.ndarray | None:
    """Sorted indices of `limit` of n rows, drawn without replacement; None if there are no more than that."""
    if n <= limit:
        return None
    return np.sort(np.random.default_rng([seed, 4]).choice(n, limit, replace=False))


def nearest_rows(x: np.ndarray, base: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` rows of (M, D) base nearest to each of (N, D) x by Euclidean distance, in blocks of x.

    Returns:
        indices (N, count) int64, nearest first, and distances (N, count) float32.
    """
    center = base.mean(0, dtype=np.float64).astype(base.dtype)
    reference = torch.from_numpy(base - center).float()
    squared = reference.square().sum(1)
    indices, distances = [], []
    for start in range(0, len(x), max(1, BLOCK_DISTANCES // len(base))):
        rows = torch.from_numpy(x[start : start + max(1, BLOCK_DISTANCES // len(base))] - center).float()
        gaps = torch.addmm(squared, rows, reference.T, alpha=-2).add_(rows.square().sum(1, keepdim=True))
        values, found = gaps.topk(count, largest=False)
        indices.append(found)
        distances.append(values.clamp(min=0).sqrt())
    return torch.cat(indices).numpy(), torch.cat(distances).numpy()
