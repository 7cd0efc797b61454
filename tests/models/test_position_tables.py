"""Position tables go from the grid they were trained on to the grid in use in one step, whatever the file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from support.published_vits import dinov2_tensors, google_arrays
from torch import Tensor

from fgdemo.models.encoder import Encoder

TINY = {"depth": 1, "embed_dim": 48, "num_heads": 3}
DINOV2, REGISTERS, VIT = "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_base_patch16_224"
CHANNEL = torch.arange(48)


def smooth(height: int, width: int) -> Tensor:
    """(1, height, width, 48) cosines at the centres of cells: channel c runs through c // 8 waves along the height and
    c % 8 along the width, as many as a grid of 14 can just hold and one of 37 holds with ease."""
    y, x = ((torch.arange(n)[:, None] + 0.5) / n * 2 * math.pi for n in (height, width))
    down, across = torch.cos(y * (CHANNEL // 8)), torch.cos(x * (CHANNEL % 8))
    return (down[:, None] * across[None])[None]


def direct(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """(1, side, side, D) resampled to (1, h * w, D) in one step."""
    image = table.permute(0, 3, 1, 2)
    resampled = F.interpolate(image, size=grid, mode="bicubic", align_corners=False, antialias=True)
    return resampled.flatten(2).transpose(1, 2)


def inside(table: Tensor) -> Tensor:
    return table[:, 3:-3, 3:-3]


def write(folder: Path, kind: str) -> tuple[str, str, int, Tensor]:
    """A file with a smooth table behind a random class entry: its path, the encoder, its side, the class entry."""
    name, side = {"google": (VIT, 14), "registers": (REGISTERS, 37)}.get(kind, (DINOV2, 37))
    first = torch.randn(1, 1, 48)
    table = torch.cat([first, smooth(side, side).flatten(1, 2)], dim=1)
    if kind == "google":
        arrays = google_arrays(depth=1, side=side) | {"Transformer/posembed_input/pos_embedding": table.numpy()}
        np.savez(folder / "w.npz", **arrays)
        return str(folder / "w.npz"), name, side, first
    tensors = dinov2_tensors(depth=1, side=side, registers=4 if kind == "registers" else 0) | {"pos_embed": table}
    if kind == "timm":
        del tensors["mask_token"]
        save_file(tensors, folder / "w.safetensors")
        return str(folder / "w.safetensors"), name, side, first
    torch.save(tensors, folder / "w.pth")
    return str(folder / "w.pth"), name, side, first


@pytest.fixture(params=["google", "dinov2", "timm", "registers"])
def source(request, tmp_path: Path) -> tuple[Callable[..., Encoder], int, Tensor]:
    """What opens the file at a size, its native side in patches, and the class token's entry of its table."""
    path, name, side, first = write(tmp_path, request.param)

    def build(img_size=None, **model_args) -> Encoder:
        return Encoder(name, weights=path, img_size=img_size, model_args=TINY | model_args).eval()

    return build, side, first


def patches_of(encoder: Encoder) -> Tensor:
    table = encoder.net.pos_embed.detach()
    return table if encoder.net.no_embed_class else table[:, 1:]


@pytest.mark.parametrize("size", [(448, 448), (448, 336), (112, 224), (672, 560)])
def test_the_table_is_resampled_from_its_native_grid(source, size):
    build, side, first = source
    encoder = build(size)
    grid = encoder.grid_of(size)
    assert grid == tuple(pixels // encoder.net.patch_embed.patch_size[0] for pixels in size)
    torch.testing.assert_close(patches_of(encoder), direct(smooth(side, side), grid), atol=1e-6, rtol=0)
    if not encoder.net.no_embed_class:
        assert torch.equal(encoder.net.pos_embed[:, :1], first)
    # The reference goes through 14 x 14, having taken the patch size for the grid.
    through_14 = direct(direct(smooth(side, side), (14, 14)).unflatten(1, (14, 14)), grid)
    assert side == 14 or (patches_of(encoder) - through_14).abs().max() > 0.1


def test_the_native_size_keeps_the_bits(source):
    build, side, _ = source
    native = build()
    assert native.input_size == (side * native.net.patch_embed.patch_size[0],) * 2
    for encoder in (native, build(native.input_size)):
        assert torch.equal(patches_of(encoder), smooth(side, side).flatten(1, 2))


def test_a_smooth_table_keeps_its_meaning(source):
    """Away from the border every entry is the cosine at its own place: rows are rows, and cells meet at their edges."""
    build, _, _ = source
    encoder = build((448, 336))
    h, w = encoder.grid_of((448, 336))
    found = patches_of(encoder).unflatten(1, (h, w))
    slow = (CHANNEL // 8 <= 1) & (CHANNEL % 8 <= 1)
    torch.testing.assert_close(inside(found)[..., slow], inside(smooth(h, w))[..., slow], atol=0.02, rtol=0)


@torch.no_grad()
def test_dynamic_sizes_start_from_the_native_grid_at_every_forward(source):
    build, side, _ = source
    dynamic = build(dynamic_img_size=True)
    assert torch.equal(patches_of(dynamic), smooth(side, side).flatten(1, 2))
    patch = dynamic.net.patch_embed.patch_size[0]
    for grid in ((6, 9), (20, 11)):
        size = (grid[0] * patch, grid[1] * patch)
        images = torch.randn(1, 3, *size)
        torch.testing.assert_close(dynamic(images), build(size)(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_dynamic_sizes_with_a_size_of_their_own(source):
    build, side, _ = source
    encoder = build((448, 336), dynamic_img_size=True)
    grid = encoder.grid_of((448, 336))
    torch.testing.assert_close(patches_of(encoder), direct(smooth(side, side), grid), atol=1e-6, rtol=0)
    images = torch.randn(1, 3, 448, 336)
    torch.testing.assert_close(encoder(images), build((448, 336))(images), atol=1e-5, rtol=1e-5)


def test_a_grid_of_as_many_patches_but_another_shape_is_resampled(tmp_path):
    tensors = dinov2_tensors(depth=1, side=6)
    torch.save(tensors, tmp_path / "w.pth")
    encoder = Encoder(DINOV2, weights=str(tmp_path / "w.pth"), img_size=(56, 126), model_args=TINY)
    assert encoder.net.pos_embed.shape == tensors["pos_embed"].shape
    expected = direct(tensors["pos_embed"][:, 1:].unflatten(1, (6, 6)), (4, 9))
    torch.testing.assert_close(patches_of(encoder), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "cell"), [("vit_mini_r10_s8_96", 8), ("vit_conv_mini_patch16_128", 16)])
@pytest.mark.parametrize("size", [(192, 192), (128, 192)])
def test_encoders_of_our_own_take_weights_of_another_size(tmp_path, name, cell, size):
    trained = Encoder(name, img_size=96).net.state_dict()
    trained["pos_embed"] = torch.randn_like(trained["pos_embed"])
    save_file(trained, tmp_path / "w.safetensors")
    loaded = Encoder(name, img_size=size, weights=str(tmp_path / "w.safetensors")).net.state_dict()
    side, grid = 96 // cell, (size[0] // cell, size[1] // cell)
    table = trained["pos_embed"]
    expected = direct(table[:, 1:].unflatten(1, (side, side)), grid)
    torch.testing.assert_close(loaded["pos_embed"], torch.cat([table[:, :1], expected], dim=1))
    assert all(torch.equal(value, trained[key]) for key, value in loaded.items() if key != "pos_embed")
