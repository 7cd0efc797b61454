"""The cross-layer pool of one forward pass, filled block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fgdemo.models.enhancement import Enhancement, gate
from fgdemo.models.votes import confident_votes, head_votes, mean_attention, ranking
from fgdemo.models.voting_settings import VotingSettings

RandomOrder = Callable[[int, Tensor], Tensor]


@dataclass
class Pool:
    """Candidates of the blocks that have run so far.

    A block's output is voted on and gathered from as soon as it is there, so that none has to be kept: memory is that
    of T tokens.

    Args:
        block, rank: (T,) int64 of every candidate, as `Quotas.table` gives them.
        grid: (h, w) of the patches.
        prefix: tokens before the patches.
        random_order: (block, like (B, N)) -> (B, N) int64, for the control that selects at random.
        trace: what a trace keeps, or None.

    Attributes:
        slots: (B, T + 1, D) candidates and a spare one; None before the first block or without selection.
        merged: one (B, D) of each block that merges what was not selected.
        class_token: (B, D) of the last block, as it is.
    """

    settings: VotingSettings
    enhancement: Enhancement
    block: Tensor
    rank: Tensor
    grid: tuple[int, int]
    prefix: int
    random_order: RandomOrder
    trace: dict[str, list[Tensor]] | None = None
    depth: int = 0
    slots: Tensor | None = None
    merged: list[Tensor] = field(default_factory=list)
    class_token: Any = None

    @property
    def tokens(self) -> Tensor:
        """(B, T, D) candidates, once all blocks have run."""
        return self.slots[:, :-1]

    def add(self, row: Tensor, tokens: Tensor) -> None:
        """Take the next block's class row (B, H, N) and output (B, prefix + N, D)."""
        self.class_token = tokens[:, 0]
        if self.settings.selection != "class-token" or self.trace is not None:
            votes, responses, scores = self._vote(row)
            order = self._order(row, scores.detach())
            if self.settings.selection != "class-token":
                self._select(tokens[:, self.prefix :], scores, order)
            if self.trace is not None:
                found = {"rows": row, "votes": votes, "scores": scores, "scale_scores": responses, "order": order}
                for name, value in found.items():
                    self.trace.setdefault(name, []).append(value)
        self.depth += 1

    def _vote(self, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Votes (B, N), responses (B, S, N) and scores (B, N)."""
        count = head_votes if self.settings.weights == "equal" else confident_votes
        votes = count(row, self.settings.votes)
        return votes, *self.enhancement(votes, self.grid)

    def _order(self, row: Tensor, scores: Tensor) -> Tensor:
        """(B, N) patches, the best first."""
        settings = self.settings
        if settings.selection == "random":
            return self.random_order(self.depth, scores)
        if settings.selection == "attention":
            return ranking(mean_attention(row))
        return ranking(scores, mean_attention(row) if settings.ties == "attention" else None)

    def _select(self, patches: Tensor, scores: Tensor, order: Tensor) -> None:
        place = order[:, self.rank]
        chosen = patches.gather(1, place[..., None].expand(-1, -1, patches.shape[-1]))
        if self.enhancement.learned and self.settings.selection == "votes":
            chosen = chosen * gate(scores.gather(1, place), scores)[..., None].to(chosen.dtype)
        mine = self.block == self.depth
        # Written in place, so that no block's tokens outlive it, compiled or not; what is another block's goes to a
        # spare slot, so that quotas may move without a change of shape.
        size = self.block.numel()
        if self.slots is None:
            self.slots = chosen.new_zeros(chosen.shape[0], size + 1, chosen.shape[2])
        slot = torch.where(mine, torch.arange(size, device=mine.device), size)
        self.slots.index_copy_(1, slot, chosen)
        if self.settings.merger:
            self.merged.append(_merge(patches, scores, order, mine.sum()))


def _merge(patches: Tensor, scores: Tensor, order: Tensor, quota: Tensor) -> Tensor:
    """(B, D): patches that were not selected, (B, N, D), weighted by their scores; alike where all of these are 0."""
    place = torch.arange(order.shape[1], device=order.device)
    left = torch.zeros_like(scores).scatter(1, order, (place >= quota).to(scores.dtype).expand_as(scores))
    weights = scores.clamp(min=0) * left
    weights = torch.where(weights.sum(1, keepdim=True) > 1e-6, weights, left)
    with torch.autocast(patches.device.type, enabled=False):
        mean = (weights[:, None] @ patches.float())[:, 0] / weights.sum(1, keepdim=True).clamp(min=1e-6)
    return mean.to(patches.dtype)
