"""Google's ViT and Meta's DINOv2 in plain tensor algebra: random weights under the official names and axes, and what
they compute. Nothing here knows timm."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def google_arrays(
    *, depth: int = 2, dim: int = 48, heads: int = 3, patch: int = 16, side: int = 3, classes: int = 5, seed: int = 0
) -> dict[str, np.ndarray]:
    """float32 arrays of a ViT trained on `side` x `side` patches, as in google-research/vision_transformer."""
    rng = np.random.default_rng(seed)
    width, hidden = dim // heads, 4 * dim
    shapes = {
        "cls": (1, 1, dim),
        "embedding/kernel": (patch, patch, 3, dim),
        "embedding/bias": (dim,),
        "Transformer/posembed_input/pos_embedding": (1, side * side + 1, dim),
        "Transformer/encoder_norm/scale": (dim,),
        "Transformer/encoder_norm/bias": (dim,),
        "head/kernel": (dim, classes),
        "head/bias": (classes,),
    }
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes |= {f"{attention}/{part}/kernel": (dim, heads, width), f"{attention}/{part}/bias": (heads, width)}
        shapes |= {f"{attention}/out/kernel": (heads, width, dim), f"{attention}/out/bias": (dim,)}
        shapes |= {f"{block}/MlpBlock_3/Dense_0/kernel": (dim, hidden), f"{block}/MlpBlock_3/Dense_0/bias": (hidden,)}
        shapes |= {f"{block}/MlpBlock_3/Dense_1/kernel": (hidden, dim), f"{block}/MlpBlock_3/Dense_1/bias": (dim,)}
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}/{norm}/scale": (dim,), f"{block}/{norm}/bias": (dim,)}
    return {name: rng.normal(scale=0.2, size=shape).astype(np.float32) for name, shape in shapes.items()}


def google_logits(arrays: dict[str, np.ndarray], images: Tensor) -> Tensor:
    """Logits (B, C) of images (B, 3, H, W) of the trained size: arXiv 2010.11929, equations 1 to 4, in float64."""
    a = {name: torch.from_numpy(array.astype(np.float64)) for name, array in arrays.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], a[f"{name}/scale"], a[f"{name}/bias"], 1e-6)

    side = a["embedding/kernel"].shape[0]
    patches = images.double().unfold(2, side, side).unfold(3, side, side)
    x = torch.einsum("bchwij,ijcd->bhwd", patches, a["embedding/kernel"]).flatten(1, 2) + a["embedding/bias"]
    x = torch.cat([a["cls"].expand(len(x), -1, -1), x], dim=1) + a["Transformer/posembed_input/pos_embedding"]
    block = 0
    while f"Transformer/encoderblock_{block}/LayerNorm_0/scale" in a:
        name = f"Transformer/encoderblock_{block}"
        attention = f"{name}/MultiHeadDotProductAttention_1"
        y = norm(x, f"{name}/LayerNorm_0")
        query, key, value = (
            torch.einsum("bnd,dhe->bnhe", y, a[f"{attention}/{part}/kernel"]) + a[f"{attention}/{part}/bias"]
            for part in ("query", "key", "value")
        )
        rows = torch.einsum("bnhe,bmhe->bhnm", query, key).div(math.sqrt(query.shape[-1])).softmax(-1)
        y = torch.einsum("bhnm,bmhe->bnhe", rows, value)
        x = x + torch.einsum("bnhe,hed->bnd", y, a[f"{attention}/out/kernel"]) + a[f"{attention}/out/bias"]
        mlp = f"{name}/MlpBlock_3"
        y = norm(x, f"{name}/LayerNorm_2") @ a[f"{mlp}/Dense_0/kernel"] + a[f"{mlp}/Dense_0/bias"]
        x = x + F.gelu(y) @ a[f"{mlp}/Dense_1/kernel"] + a[f"{mlp}/Dense_1/bias"]
        block += 1
    return norm(x, "Transformer/encoder_norm")[:, 0] @ a["head/kernel"] + a["head/bias"]


def dinov2_tensors(
    *,
    depth: int = 3,
    dim: int = 48,
    patch: int = 14,
    side: int = 4,
    registers: int = 0,
    swiglu: bool = False,
    chunks: int = 0,
    seed: int = 0,
) -> dict[str, Tensor]:
    """float32 tensors of a DINOv2 trained on `side` x `side` patches, named as in facebookresearch/dinov2."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, side * side + 1, dim),
        "mask_token": (1, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    }
    if registers:
        shapes["register_tokens"] = (1, registers, dim)
    # The giant's hidden width: two thirds of four times the width, rounded up to a multiple of 8.
    hidden = (int(4 * dim * 2 / 3) + 7) // 8 * 8 if swiglu else 4 * dim
    mlp = {"w12": (2 * hidden, dim), "w3": (dim, hidden)} if swiglu else {"fc1": (hidden, dim), "fc2": (dim, hidden)}
    for i in range(depth):
        # Chunk c of the list holds as many identities as blocks lie before it, so its blocks keep their numbers.
        block = f"blocks.{i // (depth // chunks)}.{i}" if chunks else f"blocks.{i}"
        shapes |= {f"{block}.{name}": (dim,) for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")}
        shapes |= {f"{block}.ls1.gamma": (dim,), f"{block}.ls2.gamma": (dim,)}
        shapes |= {f"{block}.attn.qkv.weight": (3 * dim, dim), f"{block}.attn.qkv.bias": (3 * dim,)}
        shapes |= {f"{block}.attn.proj.weight": (dim, dim), f"{block}.attn.proj.bias": (dim,)}
        for layer, shape in mlp.items():
            shapes |= {f"{block}.mlp.{layer}.weight": shape, f"{block}.mlp.{layer}.bias": shape[:1]}
    return {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}


def dinov2_features(tensors: dict[str, Tensor], images: Tensor, heads: int = 3) -> Tensor:
    """Normed class token (B, D) of images (B, 3, H, W) of the trained size, without chunks, in float64."""
    t = {name: tensor.double() for name, tensor in tensors.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], 1e-6)

    side = t["patch_embed.proj.weight"].shape[-1]
    patches = images.double().unfold(2, side, side).unfold(3, side, side)
    x = torch.einsum("bchwij,dcij->bhwd", patches, t["patch_embed.proj.weight"]).flatten(1, 2)
    x = torch.cat([t["cls_token"].expand(len(x), -1, -1), x + t["patch_embed.proj.bias"]], dim=1) + t["pos_embed"]
    if "register_tokens" in t:
        x = torch.cat([x[:, :1], t["register_tokens"].expand(len(x), -1, -1), x[:, 1:]], dim=1)
    block = 0
    while f"blocks.{block}.norm1.weight" in t:
        name = f"blocks.{block}"
        qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").unflatten(-1, (3, heads, -1))
        query, key, value = qkv.unbind(2)
        rows = torch.einsum("bnhe,bmhe->bhnm", query, key).div(math.sqrt(query.shape[-1])).softmax(-1)
        y = linear(torch.einsum("bhnm,bmhe->bnhe", rows, value).flatten(2), f"{name}.attn.proj")
        x = x + t[f"{name}.ls1.gamma"] * y
        y = norm(x, f"{name}.norm2")
        if f"{name}.mlp.w12.weight" in t:
            gate, up = linear(y, f"{name}.mlp.w12").chunk(2, dim=-1)
            y = linear(F.silu(gate) * up, f"{name}.mlp.w3")
        else:
            y = linear(F.gelu(linear(y, f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
        x = x + t[f"{name}.ls2.gamma"] * y
        block += 1
    return norm(x, "norm")[:, 0]
