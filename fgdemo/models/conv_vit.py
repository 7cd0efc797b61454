"""Vision transformers that learn from a few thousand pictures: convolutions first, class token, a few blocks.

Plain patch embeddings need far more pictures than small data sets have; strided convolutions in their place make a
transformer trainable from scratch (Xiao et al., Early Convolutions Help Transformers See Better, NeurIPS 2021).
Registered among timm's models, so that each is an encoder name like any other. Stock timm does not know them: their
checkpoints name the network `conv_vit` and carry no root `architecture`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm import create_model
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from timm.models.vision_transformer_hybrid import ConvStem, HybridEmbed
from torch import nn

from fgdemo.models.network import register_network
from fgdemo.models.timm_network import TimmNetwork


def _cfg(side: int, first_conv: str) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, side, side),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": f"patch_embed.backbone.{first_conv}",
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs(
    {
        "vit_conv_mini_patch16_128.untrained": _cfg(128, "0.conv"),
        "vit_mini_r10_s8_96.untrained": _cfg(96, "conv1"),
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
    embed = partial(HybridEmbed, backbone=stem, proj=False)
    model_args = {"img_size": 128, "embed_dim": channels[-1], "depth": 4, "num_heads": 4}
    return _build("vit_conv_mini_patch16_128", pretrained, embed, {**model_args, **kwargs})


@register_model
def vit_mini_r10_s8_96(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """1.7 M parameters; the first two stages of a ResNet-18, five blocks on patches of 8 pixels: 144 of them at 96."""
    stages = create_model("resnet18", features_only=True, out_indices=(2,))
    embed = partial(HybridEmbed, backbone=stages, proj=True)
    model_args = {"img_size": 96, "embed_dim": 128, "depth": 5, "num_heads": 4}
    return _build("vit_mini_r10_s8_96", pretrained, embed, {**model_args, **kwargs})


def _build(name: str, pretrained: bool, embed: Any, model_args: dict[str, Any]) -> VisionTransformer:
    return build_model_with_cfg(
        VisionTransformer,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        embed_layer=embed,
        patch_size=1,
        **model_args,
    )


OWN_ARCHITECTURES = frozenset({"vit_conv_mini_patch16_128", "vit_mini_r10_s8_96"})


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
