"""The filters that strengthen votes which lie together, as a module."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fgdemo.models.votes import KERNEL, Border, Combine, combine_scales, scale_kernels, scale_responses


class Enhancement(nn.Module):
    """Multi-scale enhancement with the published filter, or with one learned for each scale.

    Args:
        dilations: scales.
        combine: how the responses become one score.
        border: what lies beyond the grid.
        kernel: "learned" starts at the published filter and adds a bias; its gradient comes from `gate`.
    """

    def __init__(
        self, dilations: tuple[int, ...], *, combine: Combine, border: Border, kernel: Literal["fixed", "learned"]
    ) -> None:
        super().__init__()
        self.dilations, self.combine, self.border = dilations, combine, border
        self.learned = kernel == "learned"
        if self.learned:
            self.base = nn.Parameter(torch.tensor(KERNEL, dtype=torch.float32).repeat(len(dilations), 1, 1))
            self.bias = nn.Parameter(torch.zeros(len(dilations)))
        else:
            self.register_buffer("kernels", scale_kernels(dilations), persistent=False)

    def forward(self, votes: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(B, N) votes -> responses of the scales (B, S, N) and the score (B, N), float32."""
        if self.learned:
            responses = scale_responses(
                votes, grid, scale_kernels(self.dilations, self.base), border=self.border, bias=self.bias
            )
        else:
            responses = scale_responses(votes, grid, self.kernels, border=self.border)
        return responses, combine_scales(responses, self.combine)


def gate(chosen: Tensor, scores: Tensor) -> Tensor:
    """Factors of one (B, T) for chosen scores, through which a gradient reaches the filter (straight-through).

    Their gradient is that of the chosen score over the picture's largest, (B, N) being all scores.
    """
    share = chosen / scores.detach().abs().amax(dim=-1, keepdim=True).clamp(min=1e-6)
    return 1 + (share - share.detach())
