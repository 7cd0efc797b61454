"""How many candidates each block contributes to the cross-layer pool, and how that follows the votes.

IELT (Xu et al., IEEE TMM 2023), dynamic selection: blocks whose candidates survive the final vote earn a larger quota.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from fgdemo.errors import UserError

Start = Literal["uniform", "v"]


def starting_rates(blocks: int, start: Start) -> Tensor:
    """(L,) float32 shares that sum to one: equal, or IELT's V shape, 16 at both ends and 6 in the middle of 126.

    The V is published for 11 blocks; other depths interpolate it linearly.
    """
    if start == "uniform" or blocks == 1:
        return torch.full((blocks,), 1 / blocks, dtype=torch.float32)
    depth = torch.arange(blocks, dtype=torch.float32) / (blocks - 1)
    shape = 6 + 10 * (2 * depth - 1).abs()
    return shape / shape.sum()


def apportion(rates: Tensor, total: int, *, floor: int, cap: int) -> Tensor:
    """Whole quotas (L,) int64 that sum to `total`, each between `floor` and `cap`, by largest remainder.

    Every block has `floor`; the rest is shared in proportion to `rates` (L,), what exceeds `cap` among the others.
    Among equal remainders the lowest block wins. Nothing waits for the device.

    Raises:
        UserError: the sum cannot be reached.
    """
    blocks = rates.shape[0]
    if not blocks * floor <= total <= blocks * cap:
        raise UserError(
            f"{blocks} blocks cannot contribute {total} candidates with at least {floor} and at most {cap} each."
        )
    shares = floor + (total - blocks * floor) * rates / rates.sum()
    if total > cap:
        for _ in range(blocks):
            free = shares < cap
            excess = (shares - cap).clamp(min=0).sum()
            weights = torch.where(free, rates, 0.0)
            weights = torch.where(weights.sum() > 1e-12, weights, free.float())
            shares = shares.clamp(max=cap) + excess * weights / weights.sum().clamp(min=1e-12)
    # Shares that are whole but for the last bits of arithmetic.
    shares = torch.where((shares - shares.round()).abs() < 1e-4, shares.round(), shares)
    whole = shares.floor()
    left = total - whole.sum()
    place = (shares - whole).sort(descending=True, stable=True).indices.argsort()
    return (whole + (place < left)).long()


class Quotas(nn.Module):
    """Rates and whole quotas of L blocks for T candidates, kept with the weights.

    Buffers: `rates` (L,) float32 sum to one; `quota` (L,) int64 sum to T; `steps` int64, optimiser steps seen.

    Args:
        blocks: L.
        total: T.
        start: the first rates.
        floor: the least quota, so that no block starves for good.
        cap: patches of a block.

    Raises:
        UserError: the quotas cannot sum to `total`.
    """

    def __init__(self, blocks: int, total: int, *, start: Start = "uniform", floor: int = 1, cap: int) -> None:
        super().__init__()
        self.total, self.floor, self.cap = total, floor, cap
        rates = starting_rates(blocks, start)
        self.register_buffer("rates", rates)
        self.register_buffer("quota", apportion(rates, total, floor=floor, cap=cap))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def table(self, patches: int) -> tuple[Tensor, Tensor]:
        """Block (T,) and rank in that block (T,) of every candidate, int64, for blocks of so many patches.

        The shape does not depend on the quotas, so that these may change without another graph.
        """
        quota = self.quota
        if patches < min(self.cap, self.total):
            quota = apportion(self.rates, self.total, floor=self.floor, cap=patches)
        ends = quota.cumsum(0)
        candidate = torch.arange(self.total, device=quota.device)
        block = (candidate[:, None] >= ends).sum(1)
        return block, candidate - (ends - quota)[block]

    @torch.no_grad()
    def update(self, picks: Tensor, *, rate: float, after: int) -> None:
        """One optimiser step: move the rates towards the shares of the final picks.

        `r <- (1 - rate) r + rate m / sum(m)` once `after` steps have gone by, with the exact number m (L,) of picks
        of each block, summed over micro-batches and processes.
        """
        total = picks.sum()
        moved = (1 - rate) * self.rates + rate * picks.float() / total.clamp(min=1)
        live = (self.steps >= after) & (total > 0)
        self.rates.copy_(torch.where(live, moved / moved.sum(), self.rates))
        self.quota.copy_(apportion(self.rates, self.total, floor=self.floor, cap=self.cap))
        self.steps.add_(1)

    def check(self) -> None:
        """Refuse quotas that were loaded and cannot be.

        Raises:
            UserError: they do not sum to T, or exceed what a block has.
        """
        fits = bool(self.quota.sum() == self.total) and 0 <= int(self.quota.min()) <= int(self.quota.max()) <= self.cap
        if not fits or not bool((self.rates >= 0).all() & (self.rates.sum() > 0)):
            raise UserError(f"The weights hold impossible quotas of the blocks: {self.quota.tolist()} of {self.total}.")

    def entropy(self) -> Tensor:
        """Of the quotas, over the largest possible: 1 when all blocks contribute alike, 0 when one does."""
        share = self.quota.float() / self.total
        if len(share) == 1:
            return torch.ones((), dtype=torch.float32, device=share.device)
        return -torch.xlogy(share, share).sum() / math.log(len(share))
