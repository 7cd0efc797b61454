"""A number of clusters that does not flicker from one clustering to the next."""

from __future__ import annotations

from typing import Any

import numpy as np

from fgdemo.clustering.checks import as_count


class SteadyK:
    """The K of each class changes once a criterion has named the same other K `patience` times in a row.

    Features drift from epoch to epoch and a criterion near a tie says now this, now that; every change of K gives
    subclasses new ids. Works with every criterion, since it looks at the choice and not at scores.

    Attributes:
        k: (C,) int64, the K that each class has; 0 before its first choice.
    """

    def __init__(self, patience: int = 2) -> None:
        self.patience = as_count(patience, "patience", 1)
        self.k = np.zeros(0, np.int64)
        self._rival, self._times = self.k, self.k

    def settle(self, chosen: Any) -> np.ndarray:
        """(C,) K to use, from the (C,) that was chosen this time (0: no rows, which leaves the class as it is)."""
        chosen = np.asarray(chosen, np.int64)
        grown = len(chosen) - len(self.k)
        k, rival, times = (np.pad(values, (0, max(0, grown))) for values in (self.k, self._rival, self._times))
        chosen = np.pad(chosen, (0, max(0, -grown)))
        first = k == 0
        k = np.where(first, chosen, k)
        other = (chosen != k) & (chosen > 0)
        times = np.where(other, np.where(chosen == rival, times + 1, 1), np.where(chosen == 0, times, 0))
        rival = np.where(other, chosen, np.where(chosen == 0, rival, 0))
        won = times >= self.patience
        self.k = np.where(won, rival, k)
        self._rival, self._times = np.where(won, 0, rival), np.where(won, 0, times)
        return self.k.copy()

    def state_dict(self) -> dict[str, list[int]]:
        """What `load_state_dict` needs to go on, as JSON."""
        return {"k": self.k.tolist(), "rival": self._rival.tolist(), "times": self._times.tolist()}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Go on from what `state_dict` gave."""
        self.k, self._rival, self._times = (np.array(state[name], np.int64) for name in ("k", "rival", "times"))
