"""Plain supervised classification: the control that every other method is measured against."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from timm.data import Mixup
from torch import Tensor, nn

from fgdemo.data import Sample
from fgdemo.errors import UserError
from fgdemo.models import Network
from train.methods.base import DataInfo, Method, build_plain_network
from train.options import EncoderOptions


@dataclass
class ClassifyOptions:
    """Loss of classify"""

    label_smoothing: float = 0.0
    """share of the target that is spread evenly over all classes"""
    mixup: float = 0.0
    """alpha of mixup; 0: off"""
    cutmix: float = 0.0
    """alpha of cutmix; 0: off; with mixup each batch gets one of the two"""
    mixup_prob: float = 1.0
    """share of the batches that are mixed"""


class Classify(Method):
    """Cross-entropy of a linear head on any encoder."""

    name = "classify"
    Options = ClassifyOptions
    options: ClassifyOptions

    def __init__(self, options: ClassifyOptions, data: DataInfo) -> None:
        super().__init__(options, data)
        if not 0 <= options.label_smoothing < 1:
            raise UserError(f"--label-smoothing is {options.label_smoothing}; it lies between 0 and 1.")
        self.mix = None
        if options.mixup > 0 or options.cutmix > 0:
            self.mix = Mixup(
                mixup_alpha=options.mixup,
                cutmix_alpha=options.cutmix,
                prob=options.mixup_prob,
                label_smoothing=options.label_smoothing,
                num_classes=data.num_classes,
            )

    def build(self, encoder: EncoderOptions) -> Network:
        return build_plain_network(encoder, self.data.num_classes)

    def training_step(self, model: nn.Module, batch: Sample) -> dict[str, Tensor]:
        images, labels, smoothing = batch.image, batch.label, self.options.label_smoothing
        if self.mix is not None:
            if len(images) % 2:
                raise UserError(
                    f"Mixup and cutmix pair up the pictures of a batch: --batch-size {len(images)} is not even."
                )
            # timm mixes each picture with its mirror position in the batch; its targets are already smoothed.
            images, labels, smoothing = *self.mix(images, labels), 0.0
        logits = model(images).logits
        return {"total": F.cross_entropy(logits, labels, label_smoothing=smoothing)}
