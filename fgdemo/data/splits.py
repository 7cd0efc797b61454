"""Stratified splits."""

from __future__ import annotations

import numpy as np

from fgdemo.data.rng import keyed_permutation
from fgdemo.errors import UserError


def stratified_holdout(labels: np.ndarray, fraction: float, *, seed: int) -> np.ndarray:
    """(n,) bool mask of the held-out rows: ``round(fraction * n)`` of them, each class in proportion.

    A class's share is rounded so that the total comes out (largest remainders first, ties by seed). Each
    class keeps at least one row, so a class with one row loses none; the total may fall short by that.

    Args:
        labels: (n,) integer class ids.
        fraction: 0 <= fraction < 1.

    Raises:
        UserError: a fraction outside this range.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"A held-out fraction must be at least 0 and below 1, not {fraction}.")
    labels = np.asarray(labels)
    n = len(labels)
    if n == 0:
        return np.zeros(0, dtype=bool)
    classes, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    exact = fraction * sizes
    quota = np.minimum(np.floor(exact).astype(np.int64), sizes - 1)
    missing = round(fraction * n) - int(quota.sum())
    if missing > 0:
        tie = keyed_permutation(len(classes), "holdout classes", seed)
        by_remainder = np.lexsort((tie, quota - exact))
        eligible = by_remainder[(quota < np.minimum(exact, sizes - 1))[by_remainder]]
        quota[eligible[:missing]] += 1
    drawn = np.lexsort((keyed_permutation(n, "holdout rows", seed), inverse))
    place = np.empty(n, dtype=np.int64)
    place[drawn] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place < quota[inverse]


def hold_out(split: np.ndarray, labels: np.ndarray, name: str, fraction: float, *, seed: int) -> np.ndarray:
    """A copy of ``split`` (n,) str in which a stratified part of the ``train`` rows is called ``name``."""
    split = np.asarray(split, dtype="<U5").copy()
    train = np.flatnonzero(split == "train")
    split[train[stratified_holdout(labels[train], fraction, seed=seed)]] = name
    return split
