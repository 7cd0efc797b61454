"""Class-token attention rows without materialised attention.

timm's blocks keep their fused attention. Hooks on each block's query and key norms see the very tensors that go into
it, so no projection runs twice and outputs stay bit-identical; the product of one query with all keys is 1/N of the
attention matrix.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.layers.attention import Attention, AttentionRope
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import EvaAttention
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Receiver = Callable[[Tensor, Tensor], None]
Attends = Attention | AttentionRope | EvaAttention
ROTARY = (AttentionRope, EvaAttention)


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
    known = all(type(attention) in (Attention, *ROTARY) for attention in attentions)
    return known and not drops_patches and len({attention.num_heads for attention in attentions}) == 1


@contextmanager
def record_class_rows(net: nn.Module) -> Iterator[list[Tensor]]:
    """Within the context, each forward pass of `net` appends one row (B, H, N) float32 per block, in order.

    Only passes of the thread that opened the context count, so one net may serve several threads. The hooks are
    gone when it ends, whatever happened inside. Compile inside the context: hooks cannot be added to a graph,
    but a function traced with them in place is one graph. Only for nets that `supports_class_rows`.
    """
    rows: list[Tensor] = []

    def keep(row: Tensor, tokens: Tensor) -> None:
        # torch 2.11 cannot trace a bare rows.append.
        rows.append(row)

    taps = RowTaps()
    handles = [handle for block in net.blocks for handle in taps.tap(block, net.num_prefix_tokens)]
    taps.listen(keep)
    try:
        yield rows
    finally:
        taps.end()
        for handle in handles:
            handle.remove()


class RowTaps:
    """Hooks on transformer blocks that hand the class rows of each pass to whoever listens in its thread.

    They may stay on a module for good: they cost nothing while nobody listens, a deep copy of the module and of this
    object has hooks of its own, and a compiled pass with them is one graph.
    """

    def __init__(self) -> None:
        self._passes: dict[int, _Pass] = {}
        self._traced: _Pass | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> RowTaps:
        # Whoever listens to a module does not listen to its copy.
        return memo.setdefault(id(self), RowTaps())

    def tap(self, block: nn.Module, prefix: int) -> list[RemovableHandle]:
        """Put hooks on one block, whose first `prefix` tokens are no keys of a row, and return them."""
        return _BlockTap(self, block.attn, prefix).hooks(block)

    def listen(self, receive: Receiver) -> None:
        """From now on each tapped block that this thread runs calls `receive(row, tokens)`.

        row (B, H, N) float32 are scaled query-key products of the class token with the patches, without gradient;
        tokens (B, prefix + N, D) are the output of the block.
        """
        if torch.compiler.is_dynamo_compiling():
            # A graph runs in any thread: it must neither read nor write what belongs to one.
            self._traced = _Pass(receive)
        else:
            self._passes[threading.get_ident()] = _Pass(receive)

    def end(self) -> None:
        """Stop listening in this thread."""
        if torch.compiler.is_dynamo_compiling():
            self._traced = None
        else:
            self._passes.pop(threading.get_ident(), None)

    def current(self) -> _Pass | None:
        """The pass that is listened to in this thread; of a graph, what listens inside it, else who began outside."""
        if not torch.compiler.is_dynamo_compiling():
            return self._passes.get(threading.get_ident())
        if self._traced is not None:
            return self._traced
        return next(iter(self._passes.values()), None)


@dataclass
class _Pass:
    """Who listens to a pass, and what the hooks have seen of the block under way in it."""

    receive: Receiver
    rope: Tensor | None = None
    query: Tensor | None = None
    row: Tensor | None = None


class _BlockTap:
    """The hooks of one block."""

    def __init__(self, taps: RowTaps, attention: Attends, prefix: int) -> None:
        self.taps, self.attention, self.prefix = taps, attention, prefix

    def hooks(self, block: nn.Module) -> list[RemovableHandle]:
        attention = self.attention
        handles = [
            attention.q_norm.register_forward_hook(self.keep_query),
            attention.k_norm.register_forward_hook(self.make_row),
            block.register_forward_hook(self.hand_over),
        ]
        if isinstance(attention, ROTARY):
            handles.append(attention.register_forward_pre_hook(self.keep_rope, with_kwargs=True))
        return handles

    def keep_rope(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        current = self.taps.current()
        if current is not None:
            current.rope = args[1] if len(args) > 1 else kwargs.get("rope")

    def keep_query(self, module: nn.Module, args: tuple, query: Tensor) -> None:
        current = self.taps.current()
        if current is not None:
            current.query = query[:, :, 0].detach()

    def make_row(self, module: nn.Module, args: tuple, keys: Tensor) -> None:
        current = self.taps.current()
        if current is None:
            return
        attention, patches = self.attention, keys[:, :, self.prefix :].detach()
        # Rotary embeddings turn patch keys after the norm; the class token has no place and stays as it is.
        if current.rope is not None:
            patches = apply_rot_embed_cat(patches, current.rope.detach(), half=attention.rotate_half)
        groups = attention.num_heads // patches.shape[1]
        if groups > 1:
            patches = patches.repeat_interleave(groups, dim=1)
        current.row = _row(current.query, patches, attention.scale)
        current.rope = current.query = None

    def hand_over(self, module: nn.Module, args: tuple, tokens: Tensor) -> None:
        current = self.taps.current()
        if current is not None:
            row, current.row = current.row, None
            current.receive(row, tokens)


def _row(query: Tensor, keys: Tensor, scale: float) -> Tensor:
    """(B, H, d) with (B, H, N, d) -> (B, H, N), in float32 whatever the precision of the pass."""
    with torch.autocast(keys.device.type, enabled=False):
        # Not a product of matrices: for a single column that is the slower way.
        return (keys.float() * (query.float() * scale).unsqueeze(2)).sum(-1)
