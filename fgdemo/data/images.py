"""Safe decoding of pictures that anybody may have made, and thumbnails."""

from __future__ import annotations

import io
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from fgdemo.errors import UserError

# Formats that Pillow decodes by itself: EPS, for one, would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
MAX_PIXELS = 40_000_000
MAX_ASPECT = 50
ORIENTATION_TAG = 0x0112

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Source = str | os.PathLike | bytes | BinaryIO | Image.Image


def open_image(source: Source, *, max_pixels: int = MAX_PIXELS, max_aspect: float = MAX_ASPECT) -> Image.Image:
    """A fully decoded RGB picture, upright as its EXIF orientation says.

    Alpha (also of palettes) is composited over white. CMYK and the like are converted without colour
    profiles. 16-bit grey is scaled from 0..65535. 32-bit integer and float grey is scaled from 0 to the
    smallest of 1 (float only), 255 and 65535 that holds every value, or else from its minimum to its maximum;
    NaN and infinity count as 0. Of an animation, the first frame. Every size from 1 x 1 is accepted.

    Args:
        source: a path, the bytes of a file, a binary file object, or a Pillow picture.
        max_pixels: the header's size is compared with this before anything is decoded.

    Raises:
        UserError: not a picture in a supported format, damaged, above ``max_pixels``, or one side more than
            ``max_aspect`` times the other (resizing such a short side to an encoder's input fills the memory).
    """
    name = _name(source)
    try:
        with warnings.catch_warnings(), _opened(source) as image:
            _check_size(image.size, max_pixels, max_aspect, name)
            image.load()
            return _upright_rgb(image)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"Not a readable image: {name} exceeds {max_pixels:,} pixels.") from None
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged files
        system = error.strerror if isinstance(error, OSError) else None
        reason = system or "damaged, or in an unsupported format"
        raise UserError(f"Not a readable image: {name} ({reason}).") from error


def encode_thumbnail(image: Image.Image, size: int = 64, quality: int = 60) -> bytes:
    """WebP bytes of ``image``, its longer side reduced to ``size`` pixels, its shape kept; never enlarged."""
    small = image.convert("RGB")
    small.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def decode_thumbnail(data: bytes) -> Image.Image:
    """The RGB picture in the bytes of `encode_thumbnail`; UserError for any other or above 1024 x 1024."""
    return open_image(bytes(data), max_pixels=1024 * 1024, max_aspect=1024)


def _name(source: Source) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, Image.Image):
        return getattr(source, "filename", "") or "the picture"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "the upload"


def _opened(source: Source) -> AbstractContextManager[Image.Image]:
    if isinstance(source, Image.Image):
        return nullcontext(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        source = Path(source)
    # What Pillow has to say about damage and size is said in the UserError. The filter is this narrow because
    # threads share the filters: leaving them in the wrong order may leave it behind.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image.open(source, formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(size: tuple[int, int], max_pixels: int, max_aspect: float, name: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UserError(
            f"Not a readable image: {name} has {width} x {height} pixels; at most {max_pixels:,} are allowed."
        )
    if min(size) < 1 or max(size) > max_aspect * min(size):
        raise UserError(
            f"Not a readable image: {name} has {width} x {height} pixels; "
            f"one side may be at most {max_aspect:g} times the other."
        )


def _upright_rgb(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(ORIENTATION_TAG))
    except Exception:  # a damaged EXIF block does not make the pixels unreadable
        turn = None
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_to_8_bit(np.asarray(image), full_range=image.mode.startswith("I;16")))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    image = image.convert("RGB")
    return image.transpose(turn) if turn is not None else image


def _to_8_bit(pixels: np.ndarray, *, full_range: bool) -> np.ndarray:
    """(H, W) grey of any number type -> (H, W) uint8, by the rule in `open_image`."""
    values = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = 0.0, 65535.0
    if not full_range:
        tops = ([1.0] if pixels.dtype.kind == "f" else []) + [255.0, 65535.0]
        fitting = [top for top in tops if values.min() >= 0 and values.max() <= top]
        low, high = (0.0, fitting[0]) if fitting else (values.min(), values.max())
    return np.rint((values - low) * 255.0 / max(high - low, np.finfo(float).tiny)).astype(np.uint8)
