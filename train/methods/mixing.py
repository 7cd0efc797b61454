"""Soft targets: label smoothing, mixup and cutmix."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from timm.data import Mixup
from torch import Tensor

from fgdemo.data import Sample
from fgdemo.errors import UserError


@dataclass
class MixingOptions:
    """Targets"""

    label_smoothing: float = 0.0
    """share of the target that is spread evenly over all classes"""
    mixup: float = 0.0
    """alpha of mixup; 0: off"""
    cutmix: float = 0.0
    """alpha of cutmix; 0: off; with mixup each batch gets one of the two"""
    mixup_prob: float = 1.0
    """share of the batches that are mixed"""


class Mixing:
    """Pictures and targets as the options mix them, and the cross-entropy with these targets.

    Raises:
        UserError: a smoothing that cannot be.
    """

    def __init__(self, options: MixingOptions, num_classes: int) -> None:
        if not 0 <= options.label_smoothing < 1:
            raise UserError(f"--label-smoothing is {options.label_smoothing}; it lies between 0 and 1.")
        self.smoothing = options.label_smoothing
        self.mix = None
        if options.mixup > 0 or options.cutmix > 0:
            self.mix = Mixup(
                mixup_alpha=options.mixup,
                cutmix_alpha=options.cutmix,
                prob=options.mixup_prob,
                label_smoothing=options.label_smoothing,
                num_classes=num_classes,
            )

    @property
    def mixes(self) -> bool:
        """Whether pictures of a batch are mixed with one another."""
        return self.mix is not None

    def __call__(self, batch: Sample) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W), and targets: classes (B,) int64, or their shares (B, C) where pictures are mixed.

        Raises:
            UserError: an odd batch to mix.
        """
        if self.mix is None:
            return batch.image, batch.label
        if len(batch.image) % 2:
            raise UserError(
                f"Mixup and cutmix pair up the pictures of a batch: --batch-size {len(batch.image)} is not even."
            )
        # timm mixes each picture with its mirror position in the batch.
        return self.mix(batch.image, batch.label)

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of logits (B, C) with targets of `__call__`; those of mixed pictures are already smoothed."""
        return F.cross_entropy(logits, targets, label_smoothing=0.0 if self.mixes else self.smoothing)
