"""The last seen feature of every training picture, by dataset index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class FeatureBank:
    """Directions (float16, unit norm) and lengths of the features of N pictures; 2 D + 7 bytes a picture.

    Written to in the steps of training without waiting for the device. Each process writes what it sees; `combine`
    puts that together.

    Args:
        index: (N,) dataset indices, ascending.
        dim: D.

    Attributes: `unit` (N, D) float16, `norm` (N,) float32, `stamp` (N,) int16, the epoch of the last writing or -1,
    `fresh` (N,) bool, whether this process has written since the last `combine`.
    """

    def __init__(self, index: np.ndarray, dim: int, device: torch.device) -> None:
        index = np.asarray(index, np.int64)
        self.device = device
        # dataset indices go over the whole data set, all splits: a table leads to the rows of this one
        table = np.full(int(index.max()) + 1, -1, np.int64)
        table[index] = np.arange(len(index))
        self.row_of = torch.from_numpy(table).to(device)
        self.unit = torch.zeros(len(index), dim, dtype=torch.float16, device=device)
        self.norm = torch.zeros(len(index), device=device)
        self.stamp = torch.full((len(index),), -1, dtype=torch.int16, device=device)
        self.fresh = torch.zeros(len(index), dtype=torch.bool, device=device)

    def rows(self, index: Tensor) -> Tensor:
        """(B,) int64 rows of the bank for (B,) dataset indices of training pictures, on the bank's device."""
        return self.row_of[index.to(self.device, non_blocking=True)]

    def write(self, rows: Tensor, features: Tensor, epoch: int) -> None:
        """Keep (B, D) features of (B,) rows as they are in `epoch`; of a row that comes twice one of the two."""
        features = features.detach().to(self.device, torch.float32)
        self.unit[rows] = F.normalize(features, dim=1).half()
        self.norm[rows] = torch.linalg.vector_norm(features, dim=1)
        self.stamp[rows] = epoch
        self.fresh[rows] = True

    def combine(self, total: Callable[[Tensor], Tensor]) -> None:
        """Let every process know what each has written since the last time; `total` sums over them.

        A row that several have written gets the direction of their mean.
        """
        writers = total(self.fresh.float())
        written = writers > 0
        mine = self.fresh[:, None]
        unit = total(torch.where(mine, self.unit.float(), 0))
        norm = total(torch.where(self.fresh, self.norm, 0)) / writers.clamp(min=1)
        stamp = total(torch.where(self.fresh, self.stamp.float(), 0)) / writers.clamp(min=1)
        several = (writers > 1)[:, None]
        unit = torch.where(several, F.normalize(unit, dim=1), unit).half()
        self.unit = torch.where(written[:, None], unit, self.unit)
        self.norm = torch.where(written, norm, self.norm)
        self.stamp = torch.where(written, stamp.to(torch.int16), self.stamp)
        self.fresh = torch.zeros_like(self.fresh)

    def features(self, *, unit: bool) -> Tensor:
        """(N, D) float32, of unit norm or as long as the network gave them."""
        directions = self.unit.float()
        return directions if unit else directions * self.norm[:, None]

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` needs, after `combine`."""
        return {"unit": self.unit, "norm": self.norm, "stamp": self.stamp}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.unit, self.norm, self.stamp = (state[name].to(self.device) for name in ("unit", "norm", "stamp"))
        self.fresh = torch.zeros_like(self.fresh)


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the shares of the singular values of the centred (N, D) features (Roy and Vetterli, 2007):
    how many dimensions are used, from 1 (0 where all rows are equal) to D."""
    centred = (features - features.mean(0)).double()
    values = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0).sqrt()
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp()) if values.sum() > 0 else 0.0
