"""The rows that empty clusters take."""

from __future__ import annotations

import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch, rows_at
from fgdemo.clustering.ranks import Ranks


class Farthest:
    """Of every cluster: its farthest row from the centroid (C, T, D) float32, that distance, and the inertia."""

    def __init__(self, centroids: Tensor) -> None:
        self.rows = torch.zeros_like(centroids, dtype=torch.float32)
        self.distances = centroids.new_full(centroids.shape[:2], -1, dtype=torch.float32)
        self.inertia = centroids.new_zeros(centroids.shape[:2])

    def see(self, ids: Tensor, batch: Batch, columns: Tensor, distances: Tensor) -> None:
        """Rows of a batch, with the (C_b, M, n) columns of their clusters and distances to these."""
        total = self.distances.shape[1]
        flat, own = columns.flatten(1), distances.flatten(1)
        spare = own.new_full((len(own), total + 1), -1)
        most = spare.scatter_reduce(1, flat, own, "amax")
        # the first place at which the largest distance stands
        place = torch.arange(columns.shape[2], device=own.device).repeat(columns.shape[1]).expand_as(flat)
        place = torch.where(own == most.gather(1, flat), place, columns.shape[2])
        first = torch.full_like(spare, columns.shape[2], dtype=torch.int64).scatter_reduce(1, flat, place, "amin")
        most, first = most[:, :total], first[:, :total].clamp(max=columns.shape[2] - 1)
        farther = most > self.distances[ids]
        rows = rows_at(batch.x, first)
        self.rows[ids] = torch.where(farther[..., None], rows, self.rows[ids])
        self.distances[ids] = torch.maximum(most, self.distances[ids])
        self.inertia[ids] += spare.double().fill_(0).scatter_add(1, flat, own.double())[:, :total]

    def share(self, ranks: Ranks) -> None:
        """Of all processes the farthest."""
        if ranks.alone:
            return
        mine = self.distances.clone()
        ranks.largest(self.distances)
        # of several that hold it the last
        holder = torch.where(mine == self.distances, ranks.rank, -1)
        ranks.largest(holder)
        self.rows.masked_fill_((holder != ranks.rank)[..., None], 0)
        ranks.add(self.rows, self.inertia)
