"""Which subclass of its own class a picture falls into, under every hypothesis (FGDCC, spec section 6.6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def within_class_loss(
    subclass_logits: Tensor, labels: Tensor, clusters: Tensor, weights: Tensor, ks: Sequence[int]
) -> Tensor:
    """Weighted mean of the cross-entropies of the softmaxes over the subclasses of the own class, one for each K.

    Competing hypotheses never share a softmax: each describes the same pictures. A hypothesis of one subclass has
    nothing to say and does not count. 0, with a gradient of 0, where nothing counts.

    Args:
        subclass_logits: (B, C, sum(ks)), -inf in columns that a class lacks.
        labels: (B,) int64 classes.
        clusters: (B, M) int64 cluster of each picture inside its class under each K, -1 where unknown.
        weights: (B, M) at least 0, how much each counts.
        ks: the M hypotheses.

    Returns:
        A scalar, in float32 at least.
    """
    own = subclass_logits[torch.arange(len(labels), device=labels.device), labels]
    own = own.to(torch.promote_types(own.dtype, torch.float32))
    # 0 times the first columns, so that there is a gradient, of 0, where nothing counts
    total, counted = (0 * own[:, :0]).sum(), own.new_zeros(())
    start = 0
    for position, k in enumerate(ks):
        block, start = own[:, start : start + k], start + k
        if k == 1:
            continue
        target = clusters[:, position]
        weight = torch.where(target >= 0, weights[:, position].to(own.dtype), 0)
        # where no cluster is known the columns may all be -inf: zeros keep the gradient finite
        block = block.masked_fill((target < 0)[:, None], 0)
        losses = F.cross_entropy(block, target.clamp(min=0), reduction="none")
        total, counted = total + (weight * losses).sum(), counted + weight.sum()
    return total / counted.clamp(min=torch.finfo(own.dtype).tiny)
