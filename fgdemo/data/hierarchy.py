"""Two levels of class names: every fine class lies in exactly one coarse class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hierarchy:
    """Names of both levels and the map between them.

    ``fine_to_coarse`` is (F,) int64: the coarse class of each fine class. A data set without a hierarchy
    uses the same names on both levels (`Hierarchy.flat`).
    """

    fine_names: tuple[str, ...]
    coarse_names: tuple[str, ...]
    fine_to_coarse: np.ndarray

    def __post_init__(self) -> None:
        mapping = np.asarray(self.fine_to_coarse, dtype=np.int64)
        if mapping.shape != (len(self.fine_names),):
            raise ValueError(f"fine_to_coarse has shape {mapping.shape}, expected ({len(self.fine_names)},)")
        used = np.unique(mapping)
        if not np.array_equal(used, np.arange(len(self.coarse_names))):
            raise ValueError("every coarse class needs a fine class, and no fine class may point elsewhere")
        for level, names in (("fine", self.fine_names), ("coarse", self.coarse_names)):
            if len(set(names)) != len(names):
                raise ValueError(f"{level} class names are not unique")
        object.__setattr__(self, "fine_names", tuple(self.fine_names))
        object.__setattr__(self, "coarse_names", tuple(self.coarse_names))
        object.__setattr__(self, "fine_to_coarse", mapping)

    @classmethod
    def flat(cls, names: Sequence[str]) -> Hierarchy:
        """One level only: coarse classes are the fine ones."""
        return cls(tuple(names), tuple(names), np.arange(len(names), dtype=np.int64))

    @property
    def is_flat(self) -> bool:
        return self.fine_names == self.coarse_names
