"""Losses beyond cross-entropy: one family a file, each a function of plain tensors."""

from fgdemo.losses.triplet import TripletLoss, batch_hard_triplet
from fgdemo.losses.vicreg import VicReg, vicreg
from fgdemo.losses.within_class import within_class_loss

__all__ = ["TripletLoss", "VicReg", "batch_hard_triplet", "vicreg", "within_class_loss"]
