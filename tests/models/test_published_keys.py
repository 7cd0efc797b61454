"""Vision transformers in the files of their authors: what they compute here, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from support.published_vits import dinov2_features, dinov2_tensors, google_arrays, google_logits

from fgdemo.errors import UserError
from fgdemo.models.encoder import Encoder

TINY = {"depth": 2, "embed_dim": 48, "num_heads": 3}
DINO = {**TINY, "depth": 3}


@pytest.fixture
def google(tmp_path: Path) -> Callable[..., Encoder]:
    """Write arrays to w.npz and open them at the size they were made for."""

    def build(arrays: dict, name: str = "vit_base_patch16_224", **options) -> Encoder:
        np.savez(tmp_path / "w.npz", **arrays)
        options = {"img_size": 48, "model_args": TINY, **options}
        return Encoder(name, weights=str(tmp_path / "w.npz"), **options).eval()

    return build


@pytest.fixture
def dino(tmp_path: Path) -> Callable[..., Encoder]:
    """Write tensors to w.pth, or another file, and open them at the size they were made for."""

    def build(tensors: dict, name: str = "vit_small_patch14_dinov2", file: str = "w.pth", **options) -> Encoder:
        (save_file if file.endswith(".safetensors") else torch.save)(tensors, tmp_path / file)
        options = {"img_size": 56, "model_args": DINO, **options}
        return Encoder(name, weights=str(tmp_path / file), **options).eval()

    return build


@torch.no_grad()
def test_google_file_computes_what_its_arrays_say(google):
    arrays = google_arrays()
    encoder = google(arrays, num_classes=5)
    images = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(encoder.net(images).double(), google_logits(arrays, images), atol=1e-4, rtol=1e-4)
    assert encoder.is_pretrained
    assert not encoder.classifier_is_new
    assert encoder.data_config["mean"] == (0.5, 0.5, 0.5)


def test_google_file_gives_the_bits_that_timms_own_reader_gives(google, tmp_path):
    encoder = google(google_arrays(), num_classes=5)
    other = timm.create_model("vit_base_patch16_224", num_classes=5, img_size=48, **TINY)
    with torch.no_grad():
        other.load_pretrained(str(tmp_path / "w.npz"))
    for name, tensor in other.state_dict().items():
        assert torch.equal(encoder.net.state_dict()[name], tensor), name


def test_google_classifier_of_another_size_is_replaced_with_a_note(google, caplog):
    with caplog.at_level(logging.INFO, logger="fgdemo"):
        encoder = google(google_arrays(), num_classes=4)
    assert "classifier of 5 classes dropped, a new one of 4 made" in caplog.text
    assert encoder.classifier_is_new
    assert encoder.net.head.weight.shape == (4, 48)
    assert google(google_arrays()).num_classes == 0


def test_representation_layer_is_dropped_with_the_classifier_that_reads_it(google, caplog):
    """Its classifier would see another input, so it goes even where the number of classes is the one asked for."""
    arrays = google_arrays()
    layer = {"pre_logits/kernel": np.ones((48, 48), np.float32), "pre_logits/bias": np.ones(48, np.float32)}
    with caplog.at_level(logging.INFO, logger="fgdemo"):
        encoder = google(arrays | layer, num_classes=5)
    assert encoder.classifier_is_new
    for name in ("pre_logits/kernel", "pre_logits/bias", "head/kernel", "head/bias"):
        assert f"{name} dropped: " in caplog.text
    plain = google(arrays, num_classes=5)
    assert not torch.allclose(encoder.net.head.weight, plain.net.head.weight)
    images = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(encoder(images), plain(images))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_google_arrays_of_another_precision(google, dtype):
    stored = {name: array.astype(dtype) for name, array in google_arrays().items()}
    encoder = google(stored, img_size=(64, 32))
    rounded = google({name: array.astype(np.float32) for name, array in stored.items()}, img_size=(64, 32))
    for name, tensor in rounded.net.state_dict().items():
        assert encoder.net.state_dict()[name].dtype == torch.float32
        assert torch.equal(encoder.net.state_dict()[name], tensor), name


BLOCK = "Transformer/encoderblock_1"
ATTENTION = f"{BLOCK}/MultiHeadDotProductAttention_1"


def less(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: less(a, "cls"), "missing cls_token"),
        (lambda a: less(a, "Transformer/encoder_norm/bias"), "missing norm.bias"),
        (lambda a: less(a, "Transformer/posembed_input/pos_embedding"), "missing pos_embed"),
        (lambda a: less(a, f"{BLOCK}/LayerNorm_2/scale"), "missing blocks.1.norm2.weight"),
        (lambda a: less(a, f"{ATTENTION}/key/kernel"), f"tensor {ATTENTION}/key/kernel is missing"),
        (lambda a: less(a, f"{ATTENTION}/value/bias"), f"tensor {ATTENTION}/value/bias is missing"),
        (lambda a: a | {"extra/kernel": np.ones((2, 3), "f4")}, "unexpected extra/kernel"),
        (lambda a: a | {f"{BLOCK}/extra/bias": np.ones(2, "f4")}, f"unexpected {BLOCK}/extra/bias"),
        (lambda a: a | {"embedding/bias": np.ones(47, "f4")}, r"patch_embed.proj.bias \[47\] for \[48\]"),
        (lambda a: a | {"cls": np.ones((1, 1, 1), "f4")}, r"cls_token \[1, 1, 1\] for \[1, 1, 48\]"),
        (lambda a: a | {f"{BLOCK}/MlpBlock_3/Dense_0/kernel": np.ones((192, 48), "f4")}, "mlp.fc1.weight"),
        (lambda a: a | {f"{ATTENTION}/query/kernel": np.ones((48, 48), "f4")}, "query/kernel has shape"),
        (lambda a: a | {f"{ATTENTION}/key/kernel": np.ones((48, 6, 8), "f4")}, "differ in their number of heads"),
        (lambda a: a | {f"{ATTENTION}/out/kernel": np.ones((6, 8, 48), "f4")}, "differ in their number of heads"),
        (lambda a: google_arrays(depth=3), "unexpected blocks.2"),
        (lambda a: google_arrays(depth=1), "missing blocks.1"),
        (lambda a: google_arrays(heads=6), "6 attention heads, the encoder 3"),
        (lambda a: google_arrays(dim=96, heads=3), r"cls_token \[1, 1, 96\] for \[1, 1, 48\]"),
        (lambda a: google_arrays(patch=8), r"patch_embed.proj.weight \[48, 3, 8, 8\] for \[48, 3, 16, 16\]"),
        (
            lambda a: a | {"Transformer/posembed_input/pos_embedding": np.ones((1, 13, 48), "f4")},
            "12 patches, which make no square grid",
        ),
        (lambda a: a | {"Transformer/posembed_input/pos_embedding": np.ones((1, 10, 1), "f4")}, "pos_embed"),
    ],
)
def test_google_files_that_do_not_fit(google, change, message):
    google(google_arrays())
    with pytest.raises(UserError, match=message) as caught:
        google(change(google_arrays()))
    assert "w.npz does not fit encoder vit_base_patch16_224" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "eva02_tiny_patch14_224"])
def test_encoders_that_are_no_plain_vision_transformer(google, dino, name):
    size = 56 if name.startswith("eva") else 64
    for build, file, tensors in ((google, "w.npz", google_arrays()), (dino, "w.pth", dinov2_tensors())):
        with pytest.raises(UserError, match=f"{file} does not fit encoder {name}: the file holds a plain vision"):
            build(tensors, name, img_size=size, model_args={})


def test_a_hybrid_is_told_what_the_file_lacks(google):
    with pytest.raises(UserError, match=r"missing patch_embed\.backbone"):
        google(google_arrays(), "vit_tiny_r_s16_p8_224", img_size=64)


VARIANTS = {
    "plain": ({}, "vit_small_patch14_dinov2"),
    "registers": ({"registers": 4}, "vit_small_patch14_reg4_dinov2"),
    "swiglu": ({"swiglu": True}, "vit_giant_patch14_dinov2"),
    "both": ({"registers": 4, "swiglu": True}, "vit_giant_patch14_reg4_dinov2"),
}


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("file", ["w.pth", "w.safetensors"])
def test_dinov2_file_computes_what_its_tensors_say(dino, variant, file):
    options, name = VARIANTS[variant]
    tensors = dinov2_tensors(**options)
    encoder = dino(tensors, name, file)
    images = torch.randn(2, 3, 56, 56)
    torch.testing.assert_close(encoder(images).double(), dinov2_features(tensors, images), atol=1e-4, rtol=1e-4)
    assert encoder.data_config["mean"] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("chunks", [1, 3])
def test_chunked_blocks_are_the_same_blocks(dino, variant, chunks):
    options, name = VARIANTS[variant]
    plain, chunked = dinov2_tensors(**options), dinov2_tensors(chunks=chunks, **options)
    assert plain.keys() != chunked.keys()
    expected = dino(plain, name).net.state_dict()
    found = dino(chunked, name).net.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["plain", "registers"])
def test_dinov2_in_half_precision_is_widened_before_any_arithmetic(dino, variant):
    options, name = VARIANTS[variant]
    half = {key: tensor.half() for key, tensor in dinov2_tensors(**options).items()}
    encoder = dino(half, name, img_size=(84, 42))
    wide = dino({key: tensor.float() for key, tensor in half.items()}, name, img_size=(84, 42))
    for key, tensor in wide.net.state_dict().items():
        assert encoder.net.state_dict()[key].dtype == torch.float32
        assert torch.equal(encoder.net.state_dict()[key], tensor), key


def test_mask_token_is_optional_and_dropped_with_a_note(dino, caplog):
    tensors = dinov2_tensors(registers=4)
    with caplog.at_level(logging.INFO, logger="fgdemo"):
        encoder = dino({"model": tensors}, "vit_small_patch14_reg4_dinov2", num_classes=3)
    assert "mask_token dropped: " in caplog.text
    assert encoder.classifier_is_new
    other = dino(less(tensors, "mask_token"), "vit_small_patch14_reg4_dinov2")
    assert torch.equal(encoder.net.cls_token, other.net.cls_token)
    assert torch.equal(encoder.net.reg_token, tensors["register_tokens"])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (less(dinov2_tensors(), "norm.weight"), "missing norm.weight"),
        (less(dinov2_tensors(), "pos_embed"), "missing pos_embed"),
        (less(dinov2_tensors(), "blocks.2.ls2.gamma"), "missing blocks.2.ls2.gamma"),
        (dinov2_tensors() | {"dino_head.mlp.0.weight": torch.ones(2)}, "unexpected dino_head.mlp.0.weight"),
        (dinov2_tensors() | {"blocks.0.attn.qkv.bias": torch.ones(3)}, r"qkv.bias \[3\] for \[144\]"),
        (dinov2_tensors(depth=4), "unexpected blocks.3"),
        (dinov2_tensors(depth=2), "missing blocks.2"),
        (dinov2_tensors(depth=2, chunks=2), "missing blocks.2"),
        (dinov2_tensors(dim=96), r"cls_token \[1, 1, 96\] for \[1, 1, 48\]"),
        (dinov2_tensors(patch=16), r"proj.weight \[48, 3, 16, 16\] for \[48, 3, 14, 14\]"),
        (dinov2_tensors(swiglu=True), r"mlp.fc1.weight \[256, 48\] for \[192, 48\]"),
        (dinov2_tensors(registers=4), "unexpected reg_token"),
        (dinov2_tensors() | {"blocks.1.0.ls1.gamma": torch.ones(48)}, "two tensors of the file stand for blocks.0.ls1"),
        (dinov2_tensors() | {"pos_embed": torch.ones(1, 13, 48)}, "12 patches, which make no square grid"),
    ],
)
def test_dinov2_files_that_do_not_fit(dino, tensors, message):
    with pytest.raises(UserError, match=message) as caught:
        dino(tensors)
    assert "w.pth does not fit encoder vit_small_patch14_dinov2" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (dinov2_tensors(), "missing reg_token"),
        (dinov2_tensors(registers=2), r"reg_token \[1, 2, 48\] for \[1, 4, 48\]"),
        (dinov2_tensors(registers=4) | {"cls_token": torch.ones(1, 1, 1)}, r"cls_token has shape \[1, 1, 1\]"),
    ],
)
def test_registers_that_do_not_fit(dino, tensors, message):
    with pytest.raises(UserError, match=message):
        dino(tensors, "vit_small_patch14_reg4_dinov2")
