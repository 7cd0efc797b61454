"""A timm transformer without its last block, and modules of its kind to take that place."""

from __future__ import annotations

import copy
from typing import NamedTuple

from timm.models import named_apply
from timm.models.vision_transformer import get_init_weights_vit
from torch import nn

from fgdemo.models.encoder import Encoder


class Top(NamedTuple):
    """What was cut off: the last block, the final norm, and the classifier where trained weights brought it along."""

    block: nn.Module
    norm: nn.LayerNorm | None
    classifier: nn.Linear | None


def cut_top(encoder: Encoder) -> Top:
    """Take the last block and what comes after it out of an encoder."""
    net, classifier = encoder.net, encoder.net.get_classifier()
    trained = encoder.is_pretrained and not encoder.classifier_is_new and isinstance(classifier, nn.Linear)
    norm = next((module for module in (net.norm, net.fc_norm) if isinstance(module, nn.LayerNorm)), None)
    last = net.blocks[-1]
    net.blocks = net.blocks[:-1]
    # Tokens of the trunk are used as the blocks leave them; weights that nothing reads would have no gradient.
    net.norm = net.fc_norm = nn.Identity()
    if getattr(net, "attn_pool", None) is None:
        net.reset_classifier(0)
    else:
        net.reset_classifier(0, "token")
    encoder.num_classes = 0
    return Top(last, norm, classifier if trained else None)


def new_stage(top: Top, dim: int, start: str) -> tuple[nn.Module, nn.LayerNorm]:
    """A block and a norm of the same kind as those of `top`, with their weights or with new ones."""
    block, norm = copy.deepcopy(top.block), copy.deepcopy(top.norm)
    if norm is None:
        norm = nn.LayerNorm(dim, eps=1e-6)
    if start == "random":
        named_apply(get_init_weights_vit(needs_reset=True), block, include_root=True)
        norm.reset_parameters()
    return block, norm
