from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from fgdemo.data.images import decode_thumbnail, encode_thumbnail, open_image
from fgdemo.errors import UserError

# One colour a corner, so that a wrong turn shows: red, green / blue, white.
CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
PICTURE = Image.fromarray(CORNERS.repeat(16, axis=0).repeat(24, axis=1))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    w, h = image.size
    return [image.getpixel(p) for p in ((3, 3), (w - 4, 3), (3, h - 4), (w - 4, h - 4))]


def png_header_only(width: int, height: int) -> bytes:
    """A PNG of any size in a few bytes: black pixels of one bit, compressed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + b"\0" * ((width + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "PPM"])
def test_every_kind_of_source_gives_the_same_pixels(kind, tmp_path):
    data = encoded(PICTURE, kind)
    path = tmp_path / "a picture.bin"
    path.write_bytes(data)
    sources = [path, str(path), data, bytearray(data), io.BytesIO(data), Image.open(io.BytesIO(data))]
    for source in sources:
        image = open_image(source)
        assert image.mode == "RGB"
        assert np.array_equal(image, PICTURE)


def test_an_open_picture_stays_usable_and_unchanged():
    source = PICTURE.convert("RGBA")
    image = open_image(source)
    image.paste("black", (0, 0, 5, 5))
    assert source.mode == "RGBA"
    assert source.getpixel((0, 0)) == (255, 0, 0, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(kind, orientation):
    # How a camera held like this would have stored the picture: the inverse of the turn that shows it upright.
    turn = Image.Transpose
    stored = {
        1: None,
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_90,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_270,
    }[orientation]
    image = PICTURE if stored is None else PICTURE.transpose(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    upright = open_image(encoded(image, kind, exif=exif, **options))
    assert upright.size == PICTURE.size
    assert np.abs(np.array(corners(upright)) - np.array(corners(PICTURE))).max() < 12


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0"])
def test_damaged_exif_does_not_matter(exif):
    assert open_image(encoded(PICTURE, "JPEG", exif=exif)).size == PICTURE.size


def test_alpha_is_composited_over_white():
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    shown = open_image(encoded(image, "PNG"))
    assert shown.getpixel((0, 0)) == (255, 255, 255)
    assert shown.getpixel((1, 0)) == (127, 127, 127)
    grey = open_image(encoded(image.convert("LA"), "PNG"))
    assert grey.getpixel((0, 0)) == (255, 255, 255)


def test_transparent_palette_entry_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        shown = open_image(encoded(image, kind, transparency=0))
        assert [shown.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 0)]


def test_transparent_colour_of_a_picture_without_alpha_is_white():
    shown = open_image(encoded(PICTURE, "PNG", transparency=(0, 0, 255)))
    assert corners(shown) == [(255, 0, 0), (0, 255, 0), (255, 255, 255), (255, 255, 255)]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0, 257, 65535]], dtype=np.uint16), [0, 1, 255]),
        (np.array([[0, 100, 255]], dtype=np.int32), [0, 100, 255]),
        (np.array([[0, 257, 25700]], dtype=np.int32), [0, 1, 100]),
        (np.array([[0, 500_000, 1_000_000]], dtype=np.int32), [0, 128, 255]),
        (np.array([[-100, 0, 100]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0, 0.2, 1]], dtype=np.float32), [0, 51, 255]),
        (np.array([[0, 51, 200]], dtype=np.float32), [0, 51, 200]),
        (np.array([[np.nan, np.inf, 1]], dtype=np.float32), [0, 0, 255]),
        (np.array([[7e5, 7e5, 7e5]], dtype=np.float32), [0, 0, 0]),
    ],
)
def test_wide_grey_is_scaled_by_the_documented_rule(pixels, expected):
    image = open_image(encoded(Image.fromarray(pixels), "TIFF"))
    assert [image.getpixel((x, 0)) for x in range(3)] == [(v, v, v) for v in expected]


def test_16_bit_png():
    image = open_image(encoded(Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16)), "PNG"))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_cmyk_and_bilevel():
    cmyk = open_image(encoded(PICTURE.convert("CMYK"), "JPEG", quality=100))
    assert np.abs(np.array(corners(cmyk)) - np.array(corners(PICTURE))).max() < 12
    assert open_image(encoded(Image.new("1", (3, 3), 1), "PNG")).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_show_their_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue", "green")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert open_image(data).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [7000, 9500, 20000])
def test_enormous_picture_is_refused_by_its_header(side, monkeypatch):
    def never(*_):
        raise AssertionError("decoded")

    data = png_header_only(side, side)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    with pytest.raises(UserError, match=r"Not a readable image: .*40,000,000"):
        open_image(data)


def test_limit_is_inclusive_and_adjustable():
    assert open_image(PICTURE, max_pixels=48 * 32).size == (48, 32)
    with pytest.raises(UserError, match="48 x 32 pixels; at most 1,535"):
        open_image(PICTURE, max_pixels=48 * 32 - 1)


def test_smallest_and_most_elongated():
    assert open_image(encoded(Image.new("RGB", (1, 1)), "PNG")).size == (1, 1)
    assert open_image(encoded(Image.new("RGB", (50, 1)), "PNG")).size == (50, 1)
    assert open_image(Image.new("RGB", (60, 1)), max_aspect=60).size == (60, 1)
    for size in ((51, 1), (1, 20000)):
        with pytest.raises(UserError, match=f"{size[0]} x {size[1]} pixels; one side"):
            open_image(encoded(Image.new("RGB", size), "PNG"))


@pytest.mark.parametrize(
    "data",
    [b"", b"text, not pixels", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"],
)
def test_other_files_are_refused_by_name(data, tmp_path):
    path = tmp_path / "holiday.png"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(UserError, match="Not a readable image: "):
            open_image(source)
    with pytest.raises(UserError, match=r"holiday\.png"):
        open_image(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png \(No such file or directory\)"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(UserError, match="Is a directory"):
        open_image(tmp_path)
    with pytest.raises(UserError, match="Not a readable image"):
        open_image("nul\0byte")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_or_flipped_bytes_give_a_sentence_or_a_picture(kind):
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)), kind)
    with pytest.raises(UserError, match="Not a readable image"):
        open_image(data[: len(data) // 2])

    @given(st.integers(0, len(data) - 1), st.integers(1, 255), st.integers(1, len(data)))
    @settings(max_examples=40, deadline=None, derandomize=True)
    def damage(place: int, change: int, length: int) -> None:
        broken = bytearray(data)
        broken[place] ^= change
        with suppress(UserError):
            assert open_image(bytes(broken[:length])).mode == "RGB"

    damage()


@given(st.tuples(st.integers(1, 300), st.integers(1, 300)))
@example((300, 6))
@example((1, 300))
@settings(max_examples=15, deadline=None)
def test_thumbnail_keeps_the_shape(size):
    small = decode_thumbnail(encode_thumbnail(Image.new("RGB", size, "orange")))
    scale = min(1.0, 64 / max(size))
    assert max(small.size) <= 64
    assert abs(small.size[0] - size[0] * scale) <= 1
    assert abs(small.size[1] - size[1] * scale) <= 1


def test_thumbnail_looks_like_its_picture():
    small = decode_thumbnail(encode_thumbnail(PICTURE.resize((480, 320), Image.Resampling.NEAREST)))
    assert small.size == (64, 43)
    assert np.abs(np.array(corners(small), dtype=int) - np.array(corners(PICTURE))).max() < 40


def test_thumbnail_options_matter_and_foreign_bytes_are_refused():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    assert len(encode_thumbnail(noise, quality=20)) < len(encode_thumbnail(noise, quality=90))
    assert decode_thumbnail(encode_thumbnail(noise, size=32)).size == (32, 32)
    with pytest.raises(UserError):
        decode_thumbnail(b"RIFF")
    with pytest.raises(UserError):
        decode_thumbnail(encoded(Image.new("RGB", (1100, 1000)), "PNG"))


def test_path_like_names(tmp_path):
    path = Path(tmp_path) / "ünïcode ☂.png"
    PICTURE.save(path)
    assert open_image(path).size == PICTURE.size
