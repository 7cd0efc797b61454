"""Intervals and paired differences, with the training seed as the unit.

Pictures and episodes are averaged inside a seed first: a thousand test pictures say how well one network does, not how
well a method does. A claim needs an interval of the paired difference that excludes 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgdemo.data import keyed_seed

CONFIDENCE = 0.95
REPLICATES = 200
"""Keyed resamples of the pictures for figures that are no mean over pictures."""


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; the ends are None where fewer than two values say nothing of the spread."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval exists and lies on one side of 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def t_interval(values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """Mean and Student's t-interval of independent values.

    Raises:
        ValueError: no value.
    """
    from scipy.stats import t

    array = np.asarray(values, np.float64)
    if not len(array):
        raise ValueError("there is no value to average")
    mean = float(array.mean())
    if len(array) < 2:
        return Interval(mean, None, None, len(array))
    half = float(t.ppf((1 + confidence) / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return Interval(mean, mean - half, mean + half, len(array))


def paired_difference(
    ours: Sequence[float] | np.ndarray, control: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE
) -> Interval:
    """t-interval of ours minus control, value by value of the same seeds.

    Raises:
        ValueError: different numbers of values, or none.
    """
    first, second = np.asarray(ours, np.float64), np.asarray(control, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} values cannot be paired")
    return t_interval(first - second, confidence)


def two_way_bootstrap(
    differences: np.ndarray, *, resamples: int = 10_000, seed: int = 0, confidence: float = CONFIDENCE
) -> Interval:
    """Percentile interval of a mean difference when seeds and pictures are both drawn anew, each with replacement.

    The pigeonhole bootstrap (A. B. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007): rows and
    columns are resampled independently, which errs on the wide side.

    Args:
        differences: (S, N) outcome of ours minus that of the control, for S seeds and N pictures (or episodes).
    """
    values = np.asarray(differences, np.float64)
    seeds, pictures = values.shape
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    # blocks bound the (block, N) counts at 32 MB
    block = max(1, (1 << 22) // pictures)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        by_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=count)
        by_picture = generator.multinomial(pictures, np.full(pictures, 1 / pictures), size=count)
        means[start : start + count] = ((by_seed @ values) * by_picture).sum(1) / (seeds * pictures)
    return _percentiles(means, float(values.mean()), seeds, confidence)


def two_way_from_replicates(
    differences: np.ndarray,
    mean: float,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The same for a figure that is no mean over pictures, from its value on resampled pictures.

    Args:
        differences: (S, R) figure of ours minus that of the control for S seeds, on the R resamples of
            `bootstrap_rows`: column r is the same draw of pictures in every row.
        mean: the difference on the pictures themselves, averaged over seeds.
    """
    values = np.asarray(differences, np.float64)
    seeds, replicates = values.shape
    generator = np.random.default_rng(seed)
    by_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    column = generator.integers(0, replicates, resamples)
    means = np.einsum("rs,sr->r", by_seed, values[:, column]) / seeds
    return _percentiles(means, mean, seeds, confidence)


def bootstrap_rows(n: int, replicate: int, *key: str) -> np.ndarray:
    """(n,) rows drawn with replacement; the same for every run that names the same data and split in `key`."""
    return np.random.default_rng(keyed_seed("bootstrap", *key, n, replicate)).integers(0, n, n)


def _percentiles(means: np.ndarray, mean: float, n: int, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), n)
