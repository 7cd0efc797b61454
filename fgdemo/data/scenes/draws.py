"""Keyed random draws that are the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from fgdemo.data.rng import keyed_seed

T = TypeVar("T")


class Draws:
    """A stream of uniform draws that depends on `key` alone; streams of different keys are independent.

    Everything comes from the raw words of PCG64, which NumPy keeps stable over versions, by exact arithmetic.
    """

    def __init__(self, *key: int | str) -> None:
        self._bits = np.random.PCG64(keyed_seed("scenes", *key))

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        return (self._bits.random_raw() >> 11) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def integer(self, low: int, high: int) -> int:
        """Integer in [low, high], both ends included."""
        return low + int(self.unit() * (high + 1 - low))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def sign(self) -> int:
        return 1 if self.unit() < 0.5 else -1
