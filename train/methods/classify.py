"""Plain supervised classification: the control that every other method is measured against."""

from __future__ import annotations

from torch import Tensor, nn

from fgdemo.data import Sample
from fgdemo.models import Network
from train.methods.base import DataInfo, Method, build_plain_network
from train.methods.mixing import Mixing, MixingOptions
from train.options import EncoderOptions


class Classify(Method):
    """Cross-entropy of a linear head on any encoder."""

    name = "classify"
    Options = MixingOptions
    options: MixingOptions

    def __init__(self, options: MixingOptions, data: DataInfo) -> None:
        super().__init__(options, data)
        self.mixing = Mixing(options, data.num_classes)

    def build(self, encoder: EncoderOptions) -> Network:
        return build_plain_network(encoder, self.data.num_classes)

    def training_step(self, model: nn.Module, batch: Sample) -> dict[str, Tensor]:
        images, targets = self.mixing(batch)
        return {"total": self.mixing.cross_entropy(model(images).logits, targets)}
