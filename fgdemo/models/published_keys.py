"""Vision transformers as their authors published them, under timm's names: Google's arrays and Meta's DINOv2.

timm reads both too, but its reader of Google's files writes into the module, passes over arrays that it does not look
for, and takes a file of another number of heads. Here a file becomes a dictionary of timm's names first, so that a
strict load accounts for every tensor, and the position table goes from the grid it was trained on to the grid in use
in one step.

Sources of the names: google-research/vision_transformer (arXiv 2010.11929) and facebookresearch/dinov2 (arXiv
2304.07193, registers arXiv 2309.16588).
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fgdemo.models.weights_file import describe_names


class PublishedWeights(NamedTuple):
    """`tensors`: float32 under timm's names, the position table (1, prefix + N, D) still on its native grid.

    `heads`: attention heads, where the file tells them (Google's arrays do, a fused qkv does not).
    `dropped`: names of the file that are not used, each with the reason.
    """

    tensors: dict[str, Tensor]
    heads: int | None
    dropped: dict[str, str]


_GOOGLE = {
    "cls": "cls_token",
    "embedding/kernel": "patch_embed.proj.weight",
    "embedding/bias": "patch_embed.proj.bias",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "Transformer/encoder_norm/scale": "norm.weight",
    "Transformer/encoder_norm/bias": "norm.bias",
    "head/kernel": "head.weight",
    "head/bias": "head.bias",
}
_GOOGLE_BLOCK = {
    "LayerNorm_0/scale": "norm1.weight",
    "LayerNorm_0/bias": "norm1.bias",
    "MultiHeadDotProductAttention_1/out/kernel": "attn.proj.weight",
    "MultiHeadDotProductAttention_1/out/bias": "attn.proj.bias",
    "LayerNorm_2/scale": "norm2.weight",
    "LayerNorm_2/bias": "norm2.bias",
    "MlpBlock_3/Dense_0/kernel": "mlp.fc1.weight",
    "MlpBlock_3/Dense_0/bias": "mlp.fc1.bias",
    "MlpBlock_3/Dense_1/kernel": "mlp.fc2.weight",
    "MlpBlock_3/Dense_1/bias": "mlp.fc2.bias",
}
_IN_GOOGLE_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(.+)")
_IN_CHUNK = re.compile(r"blocks\.\d+\.(\d+\..+)")
_SWIGLU = re.compile(r"(blocks\.\d+\.mlp\.)(w12|w3)(\.\w+)")


def published_weights(tensors: dict[str, Tensor]) -> PublishedWeights | None:
    """Tensors of a file under timm's names; None for files of neither format, timm's own names included.

    Names that the format does not have are passed on, for the strict load to refuse.

    Raises:
        KeyError: queries, keys or values of a block are missing.
        ValueError: a tensor has a shape that the format rules out, or two stand for the same.
    """
    if any(_IN_GOOGLE_BLOCK.fullmatch(name) for name in tensors):
        return _from_google(tensors)
    # DINOv3 has a mask token too, but no position table; BEiT and MAE name no layer scale like this.
    if {"cls_token", "pos_embed"} <= tensors.keys() and any(name.endswith(".ls1.gamma") for name in tensors):
        alone = any(_IN_CHUNK.fullmatch(name) or _SWIGLU.fullmatch(name) for name in tensors)
        if alone or not tensors.keys().isdisjoint({"mask_token", "register_tokens"}):
            return _from_dinov2(tensors)
    return None


@torch.no_grad()
def load_published(net: nn.Module, weights: PublishedWeights) -> None:
    """Fill a timm vision transformer strictly, its position table resampled (bicubic, antialiased) to its grid.

    Raises:
        ValueError: `net` is no vision transformer, names or heads differ, or the table is of no square grid.
        RuntimeError: other shapes, from torch's strict `load_state_dict`.
    """
    if not isinstance(net, VisionTransformer):
        raise ValueError("the file holds a plain vision transformer, which this encoder is not")
    differences = describe_names(weights.tensors, net.state_dict())
    if differences:
        raise ValueError(differences)
    heads = net.blocks[0].attn.num_heads
    if weights.heads not in (None, heads):
        raise ValueError(f"the file has {weights.heads} attention heads, the encoder {heads}")
    net.load_state_dict({**weights.tensors, "pos_embed": _resampled(weights.tensors["pos_embed"], net)})


def _resampled(table: Tensor, net: VisionTransformer) -> Tensor:
    prefix = 0 if net.no_embed_class else net.num_prefix_tokens
    patches = table.shape[1] - prefix
    side = math.isqrt(max(0, patches))
    if side * side != patches:
        raise ValueError(f"the position table has entries for {patches} patches, which make no square grid")
    grid = list(net.patch_embed.grid_size)
    return resample_abs_pos_embed(table, new_size=grid, old_size=[side, side], num_prefix_tokens=prefix)


def _from_google(arrays: dict[str, Tensor]) -> PublishedWeights:
    dropped = {name: "timm's models have no representation layer" for name in arrays if name.startswith("pre_logits/")}
    if dropped:
        classifier = [name for name in arrays if name.startswith("head/")]
        dropped |= dict.fromkeys(classifier, "it classifies the output of the representation layer")
    kept = {name: array for name, array in arrays.items() if name not in dropped}
    tensors: dict[str, Tensor] = {}
    heads = set()
    for name, array in kept.items():
        block = _IN_GOOGLE_BLOCK.fullmatch(name)
        if block and re.fullmatch(r"MultiHeadDotProductAttention_1/(query|key|value)/(kernel|bias)", block[2]):
            axis = 1 if name.endswith("kernel") else 0
            heads.add(_axes(name, array, axis + 2).shape[axis])
        elif block and block[2] in _GOOGLE_BLOCK:
            tensors[f"blocks.{block[1]}.{_GOOGLE_BLOCK[block[2]]}"] = _as_torch(name, array)
            if name.endswith("/out/kernel"):
                heads.add(array.shape[0])
        else:
            tensors[_GOOGLE.get(name, name)] = _as_torch(name, array) if name in _GOOGLE else array
    for index in sorted({block[1] for block in map(_IN_GOOGLE_BLOCK.fullmatch, kept) if block}, key=int):
        attention = f"Transformer/encoderblock_{index}/MultiHeadDotProductAttention_1"
        for kind, to in (("kernel", "weight"), ("bias", "bias")):
            # (D, H, d) or (H, d): heads lie one after another in timm's rows.
            parts = [kept[f"{attention}/{part}/{kind}"].flatten(-2).t() for part in ("query", "key", "value")]
            tensors[f"blocks.{index}.attn.qkv.{to}"] = torch.cat(parts)
    if len(heads) > 1:
        raise ValueError(f"the file's blocks differ in their number of heads ({', '.join(map(str, sorted(heads)))})")
    return PublishedWeights(tensors, heads.pop(), dropped)


def _as_torch(name: str, array: Tensor) -> Tensor:
    """An array in the order of torch's axes: kernels have the input's axes first."""
    if name == "embedding/kernel":
        return _axes(name, array, 4).permute(3, 2, 0, 1)
    if name.endswith("/out/kernel"):
        return _axes(name, array, 3).flatten(0, 1).t()
    return _axes(name, array, 2).t() if name.endswith("/kernel") else array


def _axes(name: str, array: Tensor, number: int) -> Tensor:
    if array.ndim != number:
        raise ValueError(f"{name} has shape {list(array.shape)}, expected {number} axes")
    return array


def _from_dinov2(published: dict[str, Tensor]) -> PublishedWeights:
    dropped = {"mask_token": "it stands for hidden patches in pretraining only"} if "mask_token" in published else {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in published.items():
        if name in dropped:
            continue
        # A chunk holds identities in front of its blocks, so the inner number already counts from the first block.
        chunk = _IN_CHUNK.fullmatch(name)
        name = f"blocks.{chunk[1]}" if chunk else name
        swiglu = _SWIGLU.fullmatch(name)
        if swiglu:
            name = f"{swiglu[1]}{'fc1' if swiglu[2] == 'w12' else 'fc2'}{swiglu[3]}"
        if name in tensors:
            raise ValueError(f"two tensors of the file stand for {name}")
        tensors[name] = tensor.float()
    if "register_tokens" in tensors:
        # The table has entries for the class token and the patches, none for registers: timm's models with registers
        # have none for the class token either, so its entry goes into the token.
        first, tensors["pos_embed"] = tensors["pos_embed"].split([1, tensors["pos_embed"].shape[1] - 1], dim=1)
        if first.shape != tensors["cls_token"].shape:
            raise ValueError(f"cls_token has shape {list(tensors['cls_token'].shape)}, expected {list(first.shape)}")
        tensors["cls_token"] = tensors["cls_token"] + first
        tensors["reg_token"] = tensors.pop("register_tokens")
    return PublishedWeights(tensors, None, dropped)
