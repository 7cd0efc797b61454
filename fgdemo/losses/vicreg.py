"""Variance, invariance, covariance (Bardes, Ponce and LeCun, VICReg, ICLR 2022, section 4.1), between pictures.

In the original two views of a picture are drawn together. Here they are two pictures of one class or of one of its
clusters, which stand in the same batch (Fine-Grained Deep Cluster Categorization).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fgdemo.losses.gather import gather_rows

EPS = 1e-4
"""Added to variances under the root, so that its gradient is finite at 0."""


class VicReg(NamedTuple):
    """Scalars."""

    invariance: Tensor
    """mean over pairs and dimensions of the squared difference; 0 without a pair"""
    variance: Tensor
    """mean over dimensions of max(0, 1 - standard deviation)"""
    covariance: Tensor
    """sum of the squared covariances of different dimensions, over the number of dimensions"""
    paired: Tensor
    """share of the pictures that have a partner, without gradient"""


def partners(keys: Tensor) -> Tensor:
    """The next row of the same key for every row, in a ring; itself where it is alone.

    Args:
        keys: (B,) integers.

    Returns:
        (B,) int64, a permutation. Nothing is read back from the device.
    """
    order = keys.argsort(stable=True)
    ordered = keys[order]
    position = torch.arange(len(keys), device=keys.device)
    first = torch.searchsorted(ordered, ordered)
    last = torch.searchsorted(ordered, ordered, right=True) - 1
    following = torch.where(position == last, first, position + 1)
    result = torch.empty_like(order)
    result[order] = order[following]
    return result


def vicreg(features: Tensor, keys: Tensor, *, both: bool = True) -> VicReg:
    """The three terms on the features of a batch, whose pairs are the `partners` of equal keys.

    Variance and covariance are those of the features of all processes, in float32 at least. Since every paired picture
    is the partner of another, they are the same for both sides of the pairs, and are counted once.

    Args:
        features: (B, D) of any floating type; scale them so that a standard deviation of 1 in each dimension is what
            is wanted.
        keys: (B,) integers; pictures of equal keys are pulled together.
        both: send the gradient of the invariance to both pictures of a pair; False only to the first, and that of
            variance and covariance to each feature at half of its size, as the published code does by taking the
            second view without gradient.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    with torch.autocast(features.device.type, enabled=False):
        partner = partners(keys)
        paired = partner != torch.arange(len(keys), device=keys.device)
        other = features[partner]
        if not both:
            # half of the gradient of a symmetric term is what one of its two sides contributes
            features, other = features, other.detach()
        squares = (features - other).square().mean(1)
        invariance = torch.where(paired, squares, 0).sum() / paired.sum().clamp(min=1)
        rows = gather_rows(features if both else (features + features.detach()) / 2)
        centred = rows - rows.mean(0)
        freedom = max(len(rows) - 1, 1)
        deviation = (centred.square().sum(0) / freedom + EPS).sqrt()
        covariance = centred.T @ centred / freedom
        off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
        return VicReg(
            invariance,
            (1 - deviation).relu().mean(),
            off_diagonal / rows.shape[1],
            paired.float().mean(),
        )
