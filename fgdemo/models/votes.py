"""Votes of attention heads for patches (IELT, Xu et al., IEEE TMM 2023, multi-head voting)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fgdemo.errors import UserError

KERNEL = ((1, 2, 1), (2, 4, 2), (1, 2, 1))

Combine = Literal["max", "mean", "product"]
Border = Literal["zero", "normalised"]


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
    places = k - above.sum(-1, keepdim=True, dtype=torch.int32)
    return above | (equal & (equal.cumsum(-1, dtype=torch.int32) <= places))


def head_votes(logits: Tensor, k: int) -> Tensor:
    """Heads that have each patch among their k highest, (..., H, N) -> int64 (..., N); sums to H k over N.

    Raises:
        UserError: k is not between 1 and N.
    """
    return ballots(logits, k).sum(dim=-2)


def confident_votes(logits: Tensor, k: int) -> Tensor:
    """Votes that weigh what their head attends, (..., H, N) -> float32 (..., N); sums to H over N.

    Each head shares one vote among its k highest patches, in proportion to its attention to them.

    Raises:
        UserError: k is not between 1 and N.
    """
    chosen = logits.masked_fill(~ballots(logits, k), float("-inf"))
    return chosen.softmax(dim=-1).sum(dim=-2)


def mean_attention(logits: Tensor) -> Tensor:
    """Attention among the patches averaged over the heads, (..., H, N) -> (..., N), summing to one over N."""
    return logits.softmax(dim=-1).mean(dim=-2)


def ranking(scores: Tensor, ties: Tensor | None = None) -> Tensor:
    """Indices of (..., N) scores, the highest first, int64 (..., N).

    Among equal scores the higher of `ties` (..., N) comes first, and where those are equal too, the lowest index.
    """
    if ties is None:
        return scores.sort(dim=-1, descending=True, stable=True).indices
    second = ties.sort(dim=-1, descending=True, stable=True).indices
    first = scores.gather(-1, second).sort(dim=-1, descending=True, stable=True).indices
    return second.gather(-1, first)


def scale_kernels(dilations: Sequence[int], base: Tensor | None = None) -> Tensor:
    """One filter per dilation laid out densely, (S, 1, m, m) float32 with m = 2 max(dilations) + 1.

    `base` (S, 3, 3) are the undilated filters; without it all are [[1, 2, 1], [2, 4, 2], [1, 2, 1]]. Correlating with
    these is exactly the dilated correlation, in one convolution for all scales.
    """
    reach = max(dilations)
    if base is None:
        base = torch.tensor(KERNEL, dtype=torch.float32).expand(len(dilations), 3, 3)
    kernels = base.new_zeros(len(dilations), 1, 2 * reach + 1, 2 * reach + 1)
    for scale, d in enumerate(dilations):
        taps = slice(reach - d, reach + d + 1, d)
        kernels[scale, 0, taps, taps] = base[scale]
    return kernels


def scale_responses(
    votes: Tensor,
    grid: tuple[int, int],
    kernels: Tensor,
    *,
    border: Border = "zero",
    bias: Tensor | None = None,
) -> Tensor:
    """Votes on their grid filtered at each scale, (B, N) and (S, 1, m, m) -> float32 (B, S, N).

    Cells beyond the grid count as zero. With `border` "normalised" the response is divided by the share of the filter's
    absolute weight that lies on the grid, so that places at the edge are not at a disadvantage. `bias` (S,) belongs to
    learned filters; without it the filters are whole numbers, and so are their responses to counts.
    """
    maps, kernels = votes.reshape(-1, 1, *grid).float(), kernels.float()
    padding = kernels.shape[-1] // 2
    # Counts are exact in float32 and would be rounded in half precision.
    with torch.autocast(maps.device.type, enabled=False):
        found = F.conv2d(maps, kernels, padding=padding)
        if bias is None and not votes.is_floating_point():
            # Some algorithms of convolution (FFT, Winograd) are off by the last bits, and break ties by them.
            found = found.round()
        if border == "normalised":
            weight = kernels.abs()
            inside = F.conv2d(torch.ones_like(maps[:1]), weight, padding=padding)
            found = found * weight.sum((1, 2, 3))[:, None, None] / inside.clamp(min=1e-6)
        if bias is not None:
            found = found + bias.float()[:, None, None]
    return found.flatten(2)


def combine_scales(responses: Tensor, how: Combine = "max") -> Tensor:
    """(B, S, N) -> (B, N): the largest response, their mean, or their product, negative ones being zero."""
    if how == "max":
        return responses.amax(dim=1)
    if how == "mean":
        return responses.mean(dim=1)
    # Without a root, whose last bits depend on the place in memory and would break ties.
    return responses.clamp(min=0).prod(dim=1)


def enhance(votes: Tensor, grid: tuple[int, int], dilations: Sequence[int] = (1, 2, 4)) -> Tensor:
    """Multi-scale spatial enhancement, (..., N) -> float32 (..., N) of integers.

    The votes on their grid are filtered with [[1, 2, 1], [2, 4, 2], [1, 2, 1]], zero padded, once per dilation,
    and the largest response counts. `dilations=(1,)` is IELT's single scale.
    """
    kernels = scale_kernels(dilations).to(votes.device)
    responses = scale_responses(votes.reshape(-1, votes.shape[-1]), grid, kernels)
    return combine_scales(responses).reshape(votes.shape)
