"""Where on a picture a patch token reads."""

from __future__ import annotations

from timm.layers import to_2tuple
from timm.models import FeatureListNet
from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn


def field_shift(net: nn.Module) -> tuple[float, float]:
    """How far the middle of what a patch's embedding reads is from that of its cell: x, y in pixels of the input.

    Plain patch embeddings read their cell. A stack of padded 3 x 3 convolutions of stride 2, or the first stages of a
    ResNet, read around the cell's upper left corner. Of other embeddings nothing is known and no shift is assumed.
    """
    stem = getattr(net.patch_embed, "backbone", None)
    known = isinstance(stem, ConvStem | FeatureListNet)
    # A residual branch and the shortcut beside it have the same middle.
    layers = [
        module
        for name, module in net.patch_embed.named_modules()
        if known and isinstance(module, nn.Conv2d | nn.MaxPool2d) and "downsample" not in name
    ]

    def along(axis: int) -> float:
        middle, step = 0.5, 1
        for layer in layers:
            kernel, padding, stride = (to_2tuple(v)[axis] for v in (layer.kernel_size, layer.padding, layer.stride))
            middle += step * ((kernel - 1) / 2 - padding)
            step *= stride
        return middle - step / 2

    return along(1), along(0)
