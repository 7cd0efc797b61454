"""Rows against timm's own materialised attention, with the outputs untouched."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fgdemo.models.class_rows import RowTaps, record_class_rows
from fgdemo.models.encoder import Encoder


def hook_count(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def materialised(encoder, images):
    """timm's unfused softmax over all keys, (B, L, H, T, T), taken where attention dropout reads it."""
    seen, handles = [], []
    for block in encoder.net.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda m, a, out: seen.append(out)))
    encoder.net.forward_features(images)
    for handle in handles:
        handle.remove()
    for block in encoder.net.blocks:
        block.attn.fused_attn = True
    return torch.stack(seen, dim=1)


@torch.no_grad()
def test_rows_equal_materialised_attention(transformer):
    encoder, images = transformer
    rows = encoder.class_rows(images)
    h, w = rows.grid
    prefix = encoder.num_prefix_tokens
    full = materialised(encoder, images)
    assert full.shape[-1] == prefix + h * w
    expected = full[:, :, :, 0, prefix:]
    expected = expected / expected.sum(-1, keepdim=True)
    assert rows.logits.shape == (2, encoder.num_blocks, encoder.num_heads, h * w)
    assert rows.logits.dtype == torch.float32
    torch.testing.assert_close(rows.softmax(), expected, rtol=0, atol=3e-6)
    assert expected.std() > 1e-3, "a uniform row would prove nothing"


@torch.no_grad()
def test_outputs_are_bit_identical_while_recording(transformer):
    encoder, images = transformer
    before = encoder.net.forward_features(images)
    idle = hook_count(encoder)
    with record_class_rows(encoder.net) as rows:
        assert hook_count(encoder) > idle
        during = encoder.net.forward_features(images)
    assert hook_count(encoder) == idle
    assert torch.equal(before, during)
    assert len(rows) == encoder.num_blocks


def test_hooks_are_gone_after_an_error(build):
    encoder, images = build("test_vit", 64)
    before = hook_count(encoder)
    with pytest.raises(RuntimeError, match="channels"), record_class_rows(encoder.net):
        encoder.net(images[:, :1])
    assert hook_count(encoder) == before


@torch.no_grad()
def test_a_pass_of_another_thread_is_not_recorded(build):
    encoder, images = build("vit_small_patch16_dinov3", 64)
    with record_class_rows(encoder.net) as rows:
        thread = threading.Thread(target=encoder, args=(images,))
        thread.start()
        thread.join()
        assert rows == []
        encoder(images)
    assert len(rows) == encoder.num_blocks


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"])
def test_traces_as_one_graph(build, name):
    encoder, images = build(name)
    with record_class_rows(encoder.net) as rows:

        def features_and_rows(x):
            rows.clear()
            return encoder.net.forward_features(x), torch.stack(rows, dim=1)

        eager = features_and_rows(images)
        traced = torch.compile(features_and_rows, fullgraph=True, backend="aot_eager")(images)
    torch._dynamo.reset()
    for a, b in zip(eager, traced, strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_rows_stay_float32_under_bfloat16(build):
    encoder, images = build("test_vit", 64)
    exact = encoder.class_rows(images).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = encoder.class_rows(images).logits
    assert rows.dtype == torch.float32
    assert torch.equal(rows, rows.bfloat16().float()) is False, "rounded to bfloat16 somewhere"
    assert torch.nn.functional.cosine_similarity(rows.flatten(), exact.flatten(), dim=0) > 0.99


@torch.no_grad()
def test_grouped_key_heads():
    """Sapiens2 shares each key head among several query heads."""
    args = {"depth": 2, "embed_dim": 64, "num_heads": 4, "num_kv_heads": 2, "qkv_fused": False, "attn_type": "rope"}
    encoder = Encoder("vit_small_patch16_dinov3", img_size=(64, 96), model_args=args).eval()
    images = torch.randn(1, 3, 64, 96)
    prefix = encoder.num_prefix_tokens
    expected = materialised(encoder, images)[:, :, :, 0, prefix:]
    rows = encoder.class_rows(images).softmax()
    torch.testing.assert_close(rows, expected / expected.sum(-1, keepdim=True), rtol=0, atol=1e-6)


def kept_rows(taps, run):
    rows = []
    taps.listen(lambda row, tokens: rows.append(row))
    try:
        run()
    finally:
        taps.end()
    return torch.stack(rows, dim=1)


class Operations(TorchDispatchMode):
    """Counts what reaches the dispatcher."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def tapped(encoder):
    taps = RowTaps()
    for block in encoder.net.blocks:
        taps.tap(block, encoder.num_prefix_tokens)
    return taps


@torch.no_grad()
def test_permanent_taps_do_no_work_while_nobody_listens(transformer):
    encoder, images = transformer
    before, expected = encoder.net.forward_features(images), encoder.class_rows(images).logits
    with Operations() as untapped:
        encoder.net.forward_features(images)
    taps = tapped(encoder)
    with Operations() as idle:
        after = encoder.net.forward_features(images)
    with Operations() as listening:
        rows = kept_rows(taps, lambda: encoder.net.forward_features(images))
    assert torch.equal(before, after)
    assert torch.equal(rows, expected)
    assert idle.count == untapped.count < listening.count


@torch.no_grad()
def test_taps_and_a_recording_do_not_disturb_each_other(build):
    encoder, images = build("vit_small_patch16_dinov3", 64)
    taps, rows = tapped(encoder), []
    expected = encoder.class_rows(images).logits
    taps.listen(lambda row, tokens: rows.append(row))
    assert torch.equal(encoder.class_rows(images).logits, expected)
    taps.end()
    assert torch.equal(torch.stack(rows, dim=1), expected)


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch16_dinov3"])
def test_a_copy_has_taps_of_its_own(build, name):
    encoder, images = build(name)
    taps = tapped(encoder)
    expected, strays = encoder.class_rows(images).logits, []
    taps.listen(lambda row, tokens: strays.append(row))
    twin, twin_taps = copy.deepcopy((encoder, taps))
    for parameter in twin.parameters():
        parameter.add_(0.1)
    rows = kept_rows(twin_taps, lambda: twin.net.forward_features(images))
    assert strays == [], "who listens to a module does not listen to its copy"
    taps.end()
    assert rows.shape == expected.shape
    assert not torch.equal(rows, expected)
    assert torch.equal(rows, twin.class_rows(images).logits)
    assert torch.equal(kept_rows(taps, lambda: encoder.net.forward_features(images)), expected)


@torch.no_grad()
def test_a_pass_that_fails_leaves_nothing_behind(build):
    encoder, images = build("vit_small_patch16_dinov3", 64)
    taps = tapped(encoder)
    expected = encoder.class_rows(images).logits

    def fail(module, args):
        raise RuntimeError("stop")

    handle = encoder.net.blocks[1].attn.k_norm.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        kept_rows(taps, lambda: encoder.net.forward_features(images))
    handle.remove()
    assert taps.current() is None
    assert torch.equal(kept_rows(taps, lambda: encoder.net.forward_features(images)), expected)


def test_rows_have_no_gradient_but_tokens_have():
    """Also where rotary frequencies are learned."""
    args = {"depth": 2, "embed_dim": 48, "num_heads": 3}
    encoder = Encoder("vit_small_patch16_rope_mixed_224", img_size=64, model_args=args)
    taps, seen = tapped(encoder), []
    taps.listen(lambda row, tokens: seen.append((row, tokens)))
    encoder.net.forward_features(torch.randn(1, 3, 64, 64))
    taps.end()
    assert [(row.requires_grad, tokens.requires_grad) for row, tokens in seen] == [(False, True)] * 2
