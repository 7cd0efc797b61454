"""Where the attention heads of a transformer look, and which patches they vote for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgdemo.models.encoder import Encoder
from fgdemo.models.votes import ballots, default_votes, enhance


@dataclass(frozen=True)
class VotingMaps:
    """Maps of one picture over L blocks, H heads and a grid of (h, w) patches.

    attention: (L, H, h, w) float32, shares of the class token's attention among the patches.
    ballots: (L, H, h, w) bool, the k patches each head votes for.
    votes: (L, h, w) int64, heads that voted for each patch.
    scores: (L, h, w) float32, votes after multi-scale enhancement (`fgdemo.models.votes.enhance`).
    """

    grid: tuple[int, int]
    k: int
    dilations: tuple[int, ...]
    attention: np.ndarray
    ballots: np.ndarray
    votes: np.ndarray
    scores: np.ndarray

    def head_scores(self) -> np.ndarray:
        """Enhanced ballots of each single head, (L, H, h, w) float32."""
        flat = torch.from_numpy(self.ballots).flatten(2)
        return enhance(flat, self.grid, self.dilations).reshape(self.ballots.shape).numpy()


@torch.no_grad()
def voting_maps(
    encoder: Encoder, image: Tensor, *, k: int | None = None, dilations: Sequence[int] = (1, 2, 4)
) -> VotingMaps:
    """Voting maps of one preprocessed picture (3, H, W); `k` votes per head, about 3 % of the patches by default.

    Only where `encoder.has_class_rows`; the encoder should be in evaluation mode.

    Raises:
        UserError: k is not between 1 and the number of patches.
    """
    rows = encoder.class_rows(image.unsqueeze(0))
    logits = rows.logits[0]
    k = default_votes(logits.shape[-1]) if k is None else k
    chosen = ballots(logits, k)
    votes = chosen.sum(dim=1)
    scores = enhance(votes, rows.grid, dilations)

    def laid_out(maps: Tensor) -> np.ndarray:
        return maps.unflatten(-1, rows.grid).cpu().numpy()

    return VotingMaps(
        grid=rows.grid,
        k=k,
        dilations=tuple(dilations),
        attention=laid_out(rows.softmax()[0]),
        ballots=laid_out(chosen),
        votes=laid_out(votes),
        scores=laid_out(scores),
    )
