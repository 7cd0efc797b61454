"""Everything known about every sample of a data set, except its pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fgdemo.data.hierarchy import Hierarchy
from fgdemo.errors import UserError

LEVELS = ("fine", "coarse")
SPLITS = ("train", "val", "test")


@dataclass
class Catalogue:
    """One whole data set, all splits together.

    A *dataset index* is a row of this catalogue, 0..N-1; it is the same whatever the seed of the split.

    Attributes:
        name: the registered name.
        root: the folder the pictures lie in; None for data that travel with the code.
        keys: (N,) str, the POSIX path of each sample relative to ``root`` (generated sets: a path-like name).
        fine, coarse: (N,) int64 class ids of both levels. Training sees only one of them.
        split: (N,) str out of ``train``, ``val``, ``test``.
        default_labels: the level that is meant when nobody chooses one.
        reader: dataset index -> RGB picture, EXIF-oriented. It pickles, so that workers can be spawned.
        truth: further known facts, arrays by dataset index; empty for real data.
        publishable: whether thumbnails may be shipped in a checkpoint.
    """

    name: str
    root: Path | None
    keys: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    split: np.ndarray
    hierarchy: Hierarchy
    default_labels: str
    reader: Callable[[int], Image.Image]
    truth: dict[str, np.ndarray] = field(default_factory=dict)
    publishable: bool = False
    licence: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        self.keys = np.asarray(self.keys, dtype=np.str_)
        self.fine = np.asarray(self.fine, dtype=np.int64)
        self.coarse = np.asarray(self.coarse, dtype=np.int64)
        self.split = np.asarray(self.split, dtype=np.str_)
        n = len(self.keys)
        for name, column in {
            "fine": self.fine,
            "coarse": self.coarse,
            "split": self.split,
            **self.truth,
        }.items():
            if len(column) != n:
                raise ValueError(f"{self.name}: column {name} has {len(column)} rows, keys has {n}")
        if not np.array_equal(self.hierarchy.fine_to_coarse[self.fine], self.coarse):
            raise ValueError(f"{self.name}: coarse labels contradict the hierarchy")
        unknown = set(np.unique(self.split).tolist()) - set(SPLITS)
        if unknown:
            raise ValueError(f"{self.name}: unknown splits {sorted(unknown)}")
        self._check_level(self.default_labels)

    def __len__(self) -> int:
        return len(self.keys)

    def targets(self, level: str) -> np.ndarray:
        """(N,) int64 class ids at ``level`` ("fine" or "coarse")."""
        return self.fine if self._check_level(level) == "fine" else self.coarse

    def class_names(self, level: str) -> tuple[str, ...]:
        """The names that the ids of `targets` stand for."""
        fine = self._check_level(level) == "fine"
        return self.hierarchy.fine_names if fine else self.hierarchy.coarse_names

    def superclass_names(self, level: str) -> tuple[str, ...]:
        """The coarse name of each class at ``level``; a coarse class is its own."""
        coarse = self.hierarchy.coarse_names
        if self._check_level(level) == "coarse":
            return coarse
        return tuple(coarse[i] for i in self.hierarchy.fine_to_coarse.tolist())

    def rows(self, split: str) -> np.ndarray:
        """Dataset indices of one split, ascending, (n,) int64; empty where the data set has no such split."""
        if split not in SPLITS:
            raise UserError(f"Unknown split {split!r}: choose one of {', '.join(SPLITS)}.")
        return np.flatnonzero(self.split == split)

    def with_val_in_train(self) -> Catalogue:
        """The same data set with its validation pictures counted among the training ones.

        Raises:
            UserError: it has no validation split.
        """
        if not len(self.rows("val")):
            raise UserError(f"Data set {self.name} has no validation pictures to train on (--include-val).")
        return replace(self, split=np.where(self.split == "val", "train", self.split))

    @staticmethod
    def _check_level(level: str) -> str:
        if level not in LEVELS:
            raise UserError(f"Unknown label level {level!r}: choose one of {', '.join(LEVELS)}.")
        return level
