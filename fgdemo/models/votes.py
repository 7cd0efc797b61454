"""Votes of attention heads for patches (IELT, Xu et al., IEEE TMM 2023, multi-head voting)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fgdemo.errors import UserError

KERNEL = ((1, 2, 1), (2, 4, 2), (1, 2, 1))


def default_votes(patches: int) -> int:
    """Votes of each head: the published 24 of 784 patches, in proportion, and at least 4 (or all there are)."""
    return min(patches, max(4, round(patches * 24 / 784)))


def ballots(logits: Tensor, k: int) -> Tensor:
    """Each head's k highest patches, (..., H, N) -> bool (..., H, N); among equals the lowest index wins.

    Raises:
        UserError: k is not between 1 and N.
    """
    patches = logits.shape[-1]
    if not 1 <= k <= patches:
        raise UserError(f"Each head can vote for 1 to {patches} patches, not {k}.")
    last = logits.topk(k, dim=-1, sorted=True).values[..., -1:]
    above, equal = logits > last, logits == last
    places = k - above.sum(-1, keepdim=True)
    return above | (equal & (equal.cumsum(-1) <= places))


def head_votes(logits: Tensor, k: int) -> Tensor:
    """Heads that have each patch among their k highest, (B, L, H, N) -> int64 (B, L, N); sums to H k over N.

    Raises:
        UserError: k is not between 1 and N.
    """
    return ballots(logits, k).sum(dim=-2)


def enhance(votes: Tensor, grid: tuple[int, int], dilations: Sequence[int] = (1, 2, 4)) -> Tensor:
    """Multi-scale spatial enhancement, (..., N) -> float32 (..., N) of integers.

    The votes on their grid are filtered with [[1, 2, 1], [2, 4, 2], [1, 2, 1]], zero padded, once per dilation,
    and the largest response counts. `dilations=(1,)` is IELT's single scale.
    """
    h, w = grid
    maps = votes.reshape(-1, 1, h, w).float()
    kernel = torch.tensor(KERNEL, dtype=maps.dtype, device=maps.device)[None, None]
    scales = [F.conv2d(maps, kernel, padding=d, dilation=d) for d in dilations]
    return torch.stack(scales).amax(dim=0).reshape(votes.shape)
