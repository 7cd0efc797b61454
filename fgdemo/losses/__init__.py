"""Losses beyond cross-entropy: one family a file, each a function of plain tensors."""

from fgdemo.losses.triplet import TripletLoss, batch_hard_triplet

__all__ = ["TripletLoss", "batch_hard_triplet"]
