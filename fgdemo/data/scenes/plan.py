"""Which class and subclass every picture shows, and which split it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgdemo.data.rng import keyed_permutation
from fgdemo.data.scenes.species import SPECIES

PER_CLASS = {"train": 200, "val": 40, "test": 80}


@dataclass(frozen=True)
class Plan:
    """Columns by dataset index: split (N,) str, class_id (N,) int64, subclass (N,) int64 inside the class."""

    split: np.ndarray
    class_id: np.ndarray
    subclass: np.ndarray

    def __len__(self) -> int:
        return len(self.class_id)


def quotas(total: int, shares: tuple[float, ...]) -> np.ndarray:
    """(K,) int64 counts that add up to `total`, by the method of the largest remainder."""
    exact = np.asarray(shares, dtype=np.float64) / sum(shares) * total
    counts = np.floor(exact).astype(np.int64)
    short = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[short] += 1
    return counts


def plan(seed: int) -> Plan:
    """Equal numbers per class, subclasses by their shares, the same in every split; shuffled within a split."""
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for split, per_class in PER_CLASS.items():
        counts = [quotas(per_class, tuple(share for _, share in s.subclasses)) for s in SPECIES]
        class_id = np.repeat(np.arange(len(SPECIES)), per_class)
        subclass = np.concatenate([np.repeat(np.arange(len(c)), c) for c in counts])
        order = keyed_permutation(len(class_id), "scenes", seed, split)
        columns.append((np.full(len(order), split, dtype="<U5"), class_id[order], subclass[order]))
    split_column, class_column, subclass_column = (np.concatenate(c) for c in zip(*columns, strict=True))
    return Plan(split_column, class_column.astype(np.int64), subclass_column.astype(np.int64))
