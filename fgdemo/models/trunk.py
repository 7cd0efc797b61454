"""A timm transformer without its last block, and blocks of its kind to take that place."""

from __future__ import annotations

import copy

from timm.models import named_apply
from timm.models.vision_transformer import get_init_weights_vit
from torch import nn


def cut_last_block(net: nn.Module) -> nn.Module:
    """Take the last block and what comes after it out of a timm transformer and return the block."""
    last = net.blocks[-1]
    net.blocks = net.blocks[:-1]
    # Tokens of the trunk are used as the blocks leave them; weights that nothing reads would have no gradient.
    net.norm = net.fc_norm = nn.Identity()
    if getattr(net, "attn_pool", None) is not None:
        net.reset_classifier(0, "token")
    return last


def new_block(last: nn.Module, start: str) -> nn.Module:
    """A block of the same kind as `last`, with its weights or with new ones."""
    block = copy.deepcopy(last)
    if start == "random":
        named_apply(get_init_weights_vit(needs_reset=True), block, include_root=True)
    return block
