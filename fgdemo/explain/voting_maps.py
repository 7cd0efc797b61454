"""Where the attention heads of a transformer look, and which patches they vote for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgdemo.models.encoder import Encoder
from fgdemo.models.enhancement import Enhancement
from fgdemo.models.votes import default_votes, head_votes


@dataclass(frozen=True)
class VotingMaps:
    """Maps of one picture over L blocks, H heads, S scales and a grid of (h, w) patches.

    k: patches that each head votes for.
    enhancement: what makes scores of votes, on the CPU and without gradient.
    attention: (L, H, h, w) float32, shares of the class token's attention among the patches.
    ballots: (L, H, h, w), what each head gives each patch: int64, 1 for each of its k patches; or float32, its share
        of the head's attention to them, where votes weigh that.
    votes: (L, h, w), ballots of all heads together, of the same dtype.
    scores: (L, h, w) float32, votes after the enhancement over scales.
    scale_scores: (L, S, h, w) float32, votes enhanced at each scale alone.
    """

    grid: tuple[int, int]
    k: int
    enhancement: Enhancement
    attention: np.ndarray
    ballots: np.ndarray
    votes: np.ndarray
    scores: np.ndarray
    scale_scores: np.ndarray

    @classmethod
    def of(
        cls,
        rows: Tensor,
        ballots: Tensor,
        votes: Tensor,
        scores: Tensor,
        scale_scores: Tensor,
        *,
        grid: tuple[int, int],
        k: int,
        enhancement: Enhancement,
    ) -> VotingMaps:
        """From attention logits (L, H, N), and the others with N = h w for their last axes, on the CPU."""
        maps = (rows.softmax(dim=-1), ballots, votes, scores, scale_scores)
        return cls(grid, k, enhancement, *(values.unflatten(-1, grid).numpy() for values in maps))

    @property
    def dilations(self) -> tuple[int, ...]:
        """The S scales: how many patches apart votes lie that strengthen each other."""
        return self.enhancement.dilations

    def head_scores(self) -> np.ndarray:
        """Enhanced ballots of each single head, (L, H, h, w) float32."""
        return self._enhanced_ballots()[1].reshape(self.ballots.shape).numpy()

    def head_scale_scores(self) -> np.ndarray:
        """The same at each scale alone, (L, H, S, h, w) float32."""
        blocks, heads = self.ballots.shape[:2]
        return self._enhanced_ballots()[0].reshape(blocks, heads, -1, *self.grid).numpy()

    def _enhanced_ballots(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.enhancement(torch.from_numpy(self.ballots).reshape(-1, self.grid[0] * self.grid[1]), self.grid)


@torch.no_grad()
def voting_maps(
    encoder: Encoder, image: Tensor, *, k: int | None = None, dilations: Sequence[int] = (1, 2, 4)
) -> VotingMaps:
    """Voting maps of one preprocessed picture (3, H, W) for a network that does not vote itself.

    `k` votes per head, about 3 % of the patches by default. Only where `encoder.has_class_rows`; the encoder should
    be in evaluation mode.

    Raises:
        UserError: k is not between 1 and the number of patches.
    """
    rows = encoder.class_rows(image.unsqueeze(0))
    logits = rows.logits[0].cpu()
    k = default_votes(logits.shape[-1]) if k is None else k
    ballots = head_votes(logits[:, :, None], k)
    votes = ballots.sum(dim=1)
    enhancement = Enhancement(tuple(dilations), combine="max", border="zero", kernel="fixed")
    responses, scores = enhancement(votes, rows.grid)
    return VotingMaps.of(logits, ballots, votes, scores, responses, grid=rows.grid, k=k, enhancement=enhancement)
