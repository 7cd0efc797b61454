"""Batch-hard triplet loss (Hermans, Beyer, Leibe, In Defense of the Triplet Loss, 2017, equation 5)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fgdemo.errors import UserError


class TripletLoss(NamedTuple):
    """Scalars, all but the loss without gradient. The means are over valid anchors, 0 where there is none."""

    loss: Tensor
    """mean hinge, or softplus"""
    active: Tensor
    """share of the valid anchors whose hinge is above 0; with the soft margin: whose positive is the farther one"""
    positive: Tensor
    """mean distance of the hardest positive"""
    negative: Tensor
    """mean distance of the hardest negative"""
    valid: Tensor
    """share of the anchors that are valid: another sample has their label, and one has not"""


def batch_hard_triplet(
    embeddings: Tensor, labels: Tensor, *, margin: float | None = 0.2, normalise: bool = True
) -> TripletLoss:
    """Every sample against its farthest positive and its nearest negative of the batch, in Euclidean distance.

    The loss is the mean of ``max(0, positive - negative + margin)`` over valid anchors. Without any it is 0 and
    sends a gradient of 0 to `embeddings`. Equal embeddings are at distance 0, with a gradient of 0. Mining sees
    the samples of one call only: one micro-batch of one process. The device is never waited for; memory is
    O(B^2 + B D). It is computed in float32 at least, under autocast too.

    Args:
        embeddings: (B, D) of any floating type.
        labels: (B,) int64.
        margin: margin of the hinge in units of distance, or None for the soft margin
            ``log(1 + exp(positive - negative))``.
        normalise: divide the embeddings by their length first, so that distances are at most 2. False leaves
            them raw, as published code of IELT's extension does (with a margin of 1).

    Raises:
        UserError: a negative or infinite margin.
        ValueError: labels that are not one integer a sample.
    """
    if margin is not None and not (margin >= 0 and math.isfinite(margin)):
        raise UserError(f"The triplet margin must be 0 or more, not {margin}; without a value it is the soft margin.")
    if labels.shape != embeddings.shape[:1] or labels.is_floating_point():
        raise ValueError(f"labels {tuple(labels.shape)} {labels.dtype} for embeddings {tuple(embeddings.shape)}")
    embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    if normalise:
        embeddings = F.normalize(embeddings, dim=1)

    same = labels[:, None] == labels
    valid = (same.sum(1) > 1) & ~same.all(1)
    with torch.no_grad():
        # Differences, not matrix products, which cancel: equal embeddings of length 55 would be 0.04 apart.
        distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
        # The anchor itself, at distance 0, is never farther than another of its class.
        hardest_positive = distances.masked_fill(~same, -1).argmax(1)
        hardest_negative = distances.masked_fill(same, torch.inf).argmin(1)
    # Mined pairs are measured anew, so that the backward pass costs B D and not B^2 D.
    positive = torch.linalg.vector_norm(embeddings - embeddings[hardest_positive], dim=1)
    negative = torch.linalg.vector_norm(embeddings - embeddings[hardest_negative], dim=1)

    violation = positive - negative + (margin or 0)
    hinge = F.softplus(violation) if margin is None else violation.relu()
    count = valid.sum().clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(valid, values, 0).sum() / count

    return TripletLoss(
        loss=mean(hinge),
        active=mean((violation.detach() > 0).to(hinge.dtype)),
        positive=mean(positive.detach()),
        negative=mean(negative.detach()),
        valid=valid.to(hinge.dtype).mean(),
    )
