"""A vision transformer that learns from a few thousand pictures: convolutions first, class token, four blocks.

Plain patch embeddings need far more pictures than small data sets have; a stack of strided 3 x 3 convolutions in their
place makes a transformer trainable from scratch (Xiao et al., Early Convolutions Help Transformers See Better, NeurIPS
2021). Registered among timm's models, so that it is an encoder name like any other. Stock timm does not know it: its
checkpoints name the network `conv_vit` and carry no root `architecture`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem, HybridEmbed
from torch import nn

from fgdemo.models.network import register_network
from fgdemo.models.timm_network import TimmNetwork

default_cfgs = generate_default_cfgs(
    {
        "vit_conv_mini_patch16_128.untrained": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 128, 128),
            "pool_size": None,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "fixed_input_size": True,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "patch_embed.backbone.0.conv",
            "classifier": "head",
        }
    }
)


@register_model
def vit_conv_mini_patch16_128(
    pretrained: bool = False, channels: tuple[int, ...] = (24, 48, 96, 128), **kwargs: Any
) -> VisionTransformer:
    """0.97 M parameters; each entry of `channels` is a convolution of stride 2, the last one the embedding width."""
    stem = ConvStem(
        depth=len(channels),
        channels=tuple(channels),
        kernel_size=3,
        stride=(2,) * len(channels),
        padding=1,
        act_layer=nn.GELU,
    )
    model_args = {"img_size": 128, "patch_size": 1, "embed_dim": channels[-1], "depth": 4, "num_heads": 4}
    return build_model_with_cfg(
        VisionTransformer,
        "vit_conv_mini_patch16_128",
        pretrained,
        embed_layer=partial(HybridEmbed, backbone=stem, proj=False),
        **{**model_args, **kwargs},
    )


OWN_ARCHITECTURES = frozenset({"vit_conv_mini_patch16_128"})


@register_network("conv_vit")
class ConvVitNetwork(TimmNetwork):
    """An encoder of this file with a linear classifier."""

    def config(self) -> dict[str, Any]:
        return {key: value for key, value in super().config().items() if key != "architecture"}

    def network_args(self) -> dict[str, Any]:
        return {"architecture": super().config()["architecture"]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ConvVitNetwork:
        return super().from_config({**config, **config["fgdemo"]["network_args"]})
