"""Votes of nearest neighbours for their classes, weighted by similarity.

Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, section 3.4: each of
the k rows of a memory that are nearest to a query votes for its class with weight exp(cosine similarity / temperature).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

K = 20
TEMPERATURE = 0.07
"""Where nothing is known about the data; the temperature is that of the paper."""

CHUNK = 1 << 16
"""Rows of the memory compared at a time: no similarity matrix has more columns."""

NO_VOTE = 16.0
"""What a class without votes lies below the vote of its own nearest row, in nats. It is then further down than every
class with a vote, and has about 1e-7 of the probability of that one, which is what float32 resolves beside 1."""


class Neighbourhood(NamedTuple):
    """What a memory says about B queries.

    similarity: (B, k) float32 cosines of the nearest rows, descending.
    classes: (B, k) int64 classes of these rows.
    best: (B, C) float32 largest cosine over all rows of each class; -1 for a class without rows.
    """

    similarity: Tensor
    classes: Tensor
    best: Tensor


def neighbourhood(
    queries: Tensor, memory: Tensor, classes: Tensor, num_classes: int, k: int, *, own: Tensor | None = None
) -> Neighbourhood:
    """The nearest rows of each query, in chunks of the memory: B x CHUNK similarities at a time, in float32.

    Args:
        queries: (B, D) of any length and precision.
        memory: (N, D) rows of unit length.
        classes: (N,) int64 class ids of the rows.
        k: how many; at most N, and at most N - 1 with `own`.
        own: (B,) int64, for each query the row of the memory that is not its neighbour: itself.
    """
    queries = F.normalize(queries.float(), dim=1)
    similarity = queries.new_empty(len(queries), 0)
    voters = classes.new_empty(len(queries), 0)
    best = queries.new_full((len(queries), num_classes), -1.0)
    for start in range(0, len(memory), CHUNK):
        rows = memory[start : start + CHUNK]
        found = queries @ rows.float().T
        if own is not None:
            numbers = torch.arange(start, start + len(rows), device=own.device)
            found = found.masked_fill(own[:, None] == numbers, -torch.inf)
        ids = classes[start : start + CHUNK].expand_as(found)
        best = best.scatter_reduce(1, ids, found, "amax")
        nearest, position = found.topk(min(k, len(rows)), dim=1)
        nearest = torch.cat([similarity, nearest], dim=1)
        voters = torch.cat([voters, ids.gather(1, position)], dim=1)
        similarity, position = nearest.topk(min(k, nearest.shape[1]), dim=1)
        voters = voters.gather(1, position)
    return Neighbourhood(similarity, voters, best)


def log_votes(near: Neighbourhood, k: int, temperature: float) -> Tensor:
    """Logits (B, C): the logarithm of the summed votes of the k nearest rows for each class.

    Their softmax is the share of each class in the votes. A class without votes gets a finite logit, `NO_VOTE` below
    the vote of its nearest row: the order of such classes, and a gradient towards them, still mean something.

    Args:
        k: at most as many as `near` holds.
        temperature: above 0, in units of the cosine.
    """
    scaled, voters = near.similarity[:, :k] / temperature, near.classes[:, :k]
    # A shift that cancels in the result; without it the sums overflow at small temperatures.
    top = scaled[:, :1].detach()
    votes = torch.zeros_like(near.best).scatter_add(1, voters, (scaled - top).exp())
    smallest = torch.finfo(votes.dtype).tiny
    return torch.where(votes >= smallest, votes.clamp_min(smallest).log() + top, near.best / temperature - NO_VOTE)
