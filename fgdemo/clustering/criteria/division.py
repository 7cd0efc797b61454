"""What a criterion looks at, and what every rule shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fgdemo.clustering.batch import Batch
from fgdemo.clustering.partition import Measures


@dataclass(frozen=True)
class Division:
    """Classes of a batch, each divided under every K.

    Attributes:
        batch: the rows as they were clustered.
        flat: the same rows as points: where spherical, the unit-norm rows with plain means.
        labels: (C, M, n) int64, -1 in padded rows and inadmissible pairs.
        measures, flat_measures: of the labels in either batch.
        ks: the M candidates.
        admissible: (C, M) bool.
        seed: of the clustering.
    """

    batch: Batch
    flat: Batch
    labels: Tensor
    measures: Measures
    flat_measures: Measures
    ks: tuple[int, ...]
    admissible: Tensor
    seed: int


class Criterion(NamedTuple):
    """How the number of clusters is chosen.

    Attributes:
        score: division -> name -> (C, M), larger is better under the criterion's own name; further names are what its
            rule needs beside it.
        choose: (ks, those scores as arrays with NaN where inadmissible) -> (C,) position in ks; -1 where all are.
    """

    score: Callable[[Division], dict[str, Tensor]]
    choose: Callable[[tuple[int, ...], dict[str, np.ndarray]], np.ndarray]


def best_or_one(ks: tuple[int, ...], merit: np.ndarray, convincing: np.ndarray) -> np.ndarray:
    """(C,) position of the largest of (C, M) merits, or of K = 1, where that is a candidate, if none is convincing."""
    best = merit.argmax(1)
    return np.where(convincing, best, ks.index(1)) if 1 in ks else best
