"""Class-token attention rows without materialised attention.

timm's blocks keep their fused attention. While recording, hooks on each block's query and key norms see the
very tensors that go into it, so no projection runs twice and outputs stay bit-identical; the product of one
query with all keys is 1/N of the attention matrix.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from timm.layers.attention import Attention, AttentionRope
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import EvaAttention
from torch import Tensor, nn


class ClassRows(NamedTuple):
    """Attention logits of the class token over the patches of every block and head.

    logits (B, L, H, N) float32 are scaled query-key products; keys are the patches only, class, register and
    distillation tokens are left out. grid is (h, w) with N = h w, in raster order.
    """

    logits: Tensor
    grid: tuple[int, int]

    def softmax(self) -> Tensor:
        """Shares of attention among the patches, (B, L, H, N), summing to one over N."""
        return self.logits.softmax(dim=-1)


def supports_class_rows(net: nn.Module) -> bool:
    """Whether the first token is a class token and every block's attention has an adapter here.

    Subclasses may change the attention, so only the exact classes count.
    """
    if getattr(net, "cls_token", None) is None:
        return False
    attentions = [getattr(block, "attn", None) for block in net.blocks]
    drops_patches = not isinstance(getattr(net, "patch_drop", None), nn.Identity | None)
    known = all(type(attention) in _ADAPTERS for attention in attentions)
    return known and not drops_patches and len({attention.num_heads for attention in attentions}) == 1


@contextmanager
def record_class_rows(net: nn.Module) -> Iterator[list[Tensor]]:
    """Within the context, each forward pass of `net` appends one row (B, H, N) float32 per block, in order.

    Only passes of the thread that opened the context count, so one net may serve several threads. The hooks are
    gone when it ends, whatever happened inside. Compile inside the context: hooks cannot be added to a graph,
    but a function traced with them in place is one graph. Only for nets that `supports_class_rows`.
    """
    rows: list[Tensor] = []
    owner = threading.get_ident()

    def mine() -> bool:
        return torch.compiler.is_compiling() or threading.get_ident() == owner

    def emit(row: Tensor) -> None:
        # torch 2.11 cannot trace a bare rows.append.
        rows.append(row)

    with ExitStack() as stack:
        for block in net.blocks:
            attention = block.attn
            for handle in _ADAPTERS[type(attention)](attention, net.num_prefix_tokens, emit, mine):
                stack.callback(handle.remove)
        yield rows


def _plain(attention: Attention, prefix: int, emit: Callable[[Tensor], None], mine: Callable[[], bool]) -> list:
    queries: list[Tensor] = []

    def keep_query(module, args, query):
        if mine():
            queries.append(query[:, :, 0])

    def emit_row(module, args, keys):
        if mine():
            emit(_row(queries.pop(), keys[:, :, prefix:], attention.scale))

    return [
        attention.q_norm.register_forward_hook(keep_query),
        attention.k_norm.register_forward_hook(emit_row),
    ]


def _rotary(
    attention: EvaAttention | AttentionRope, prefix: int, emit: Callable[[Tensor], None], mine: Callable[[], bool]
) -> list:
    """Rotary embeddings turn patch keys after the norm; the class token has no place and stays as it is."""
    ropes: list[Tensor | None] = []
    queries: list[Tensor] = []

    def keep_rope(module, args, kwargs):
        if mine():
            ropes.append(args[1] if len(args) > 1 else kwargs.get("rope"))

    def keep_query(module, args, query):
        if mine():
            queries.append(query[:, :, 0])

    def emit_row(module, args, keys):
        if not mine():
            return
        patches, rope = keys[:, :, prefix:], ropes.pop()
        if rope is not None:
            patches = apply_rot_embed_cat(patches, rope, half=attention.rotate_half)
        groups = attention.num_heads // patches.shape[1]
        if groups > 1:
            patches = patches.repeat_interleave(groups, dim=1)
        emit(_row(queries.pop(), patches, attention.scale))

    return [
        attention.register_forward_pre_hook(keep_rope, with_kwargs=True),
        attention.q_norm.register_forward_hook(keep_query),
        attention.k_norm.register_forward_hook(emit_row),
    ]


def _row(query: Tensor, keys: Tensor, scale: float) -> Tensor:
    """(B, H, d) with (B, H, N, d) -> (B, H, N), in float32 whatever the precision of the pass."""
    with torch.autocast(keys.device.type, enabled=False):
        return (keys.float() @ (query.float() * scale).unsqueeze(-1)).squeeze(-1)


_ADAPTERS = {Attention: _plain, AttentionRope: _rotary, EvaAttention: _rotary}
