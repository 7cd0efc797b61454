"""Where on a picture a patch token reads."""

from __future__ import annotations

from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn


def field_shift(net: nn.Module) -> tuple[float, float]:
    """How far the middle of what a patch's embedding reads is from that of its cell: x, y in pixels of the input.

    Plain patch embeddings read their cell. A stack of padded 3 x 3 convolutions of stride 2 reads around the cell's
    upper left corner. Of other embeddings nothing is known and no shift is assumed.
    """
    stem = getattr(net.patch_embed, "backbone", None)
    convolutions = (
        [m for m in net.patch_embed.modules() if isinstance(m, nn.Conv2d)] if isinstance(stem, ConvStem) else []
    )

    def along(axis: int) -> float:
        middle, step = 0.5, 1
        for layer in convolutions:
            middle += step * ((layer.kernel_size[axis] - 1) / 2 - layer.padding[axis])
            step *= layer.stride[axis]
        return middle - step / 2

    return along(1), along(0)
