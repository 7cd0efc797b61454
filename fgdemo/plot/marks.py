"""Thousands of marks on paper: antialiased by supersampling, without a loop over points."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from fgdemo.palette import SYMBOLS, colour, symbol

SUPERSAMPLING = 4
_BAND = 256


def draw_marks(
    points: np.ndarray,
    styles: np.ndarray,
    size: tuple[int, int],
    *,
    radius: float,
    outline: float,
    paper: str = "#ffffff",
) -> Image.Image:
    """An RGB picture of marks in the colours and shapes of their styles, each with an outline of paper.

    Later marks lie on top. Each pixel is the mean of SUPERSAMPLING x SUPERSAMPLING samples. Memory: about 30 KB for
    each pixel of the width.

    Args:
        points: (n, 2) centres in pixels, x and y from the upper left corner.
        styles: (n,) integer styles.
        size: width and height of the picture.
        radius: half the side of the box that a mark fills, in pixels.
        outline: width of the outline in pixels.
    """
    width, height = size
    centres = np.rint(np.asarray(points, np.float64) * SUPERSAMPLING).astype(np.int64)
    layers = _layers(np.asarray(styles), radius, outline)
    colours = np.empty((2 * len(centres) + 1, 3), np.uint8)
    colours[:] = ImageColor.getrgb(paper)
    colours[2::2] = np.array([ImageColor.getrgb(colour(style)) for style in range(styles.max() + 1)])[styles]
    picture = Image.new("RGB", size, paper)
    for top in range(0, height, _BAND):
        rows = min(_BAND, height - top)
        seen = _topmost(centres - [0, top * SUPERSAMPLING], layers, (width * SUPERSAMPLING, rows * SUPERSAMPLING))
        picture.paste(Image.fromarray(colours[seen]).reduce(SUPERSAMPLING), (0, top))
    return picture


def _layers(styles: np.ndarray, radius: float, outline: float) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Points that share a shape, the offsets that this shape covers, and what each point writes there.

    Point i writes 2 i + 2, its outline the number below: of all that covers a sample, the highest is seen.
    """
    shapes = np.array([list(SYMBOLS).index(symbol(style)) for style in range(styles.max() + 1)])[styles]
    layers = []
    for number in np.unique(shapes).tolist():
        chosen = np.flatnonzero(shapes == number)
        shape = tuple(SYMBOLS)[number]
        for reach, lower in ((radius + outline, 1), (radius, 0)):
            layers.append((chosen, _stencil(shape, reach), 2 * chosen + 2 - lower))
    return layers


def _stencil(shape: str, radius: float) -> np.ndarray:
    """(k, 2) offsets in samples, x and y, of the samples inside a mark."""
    reach = max(1, round(radius * SUPERSAMPLING))
    box = Image.new("1", (2 * reach + 1, 2 * reach + 1))
    corners = SYMBOLS[shape]
    pen = ImageDraw.Draw(box)
    if corners:
        pen.polygon([(2 * reach * x, 2 * reach * y) for x, y in corners], fill=1)
    else:
        pen.ellipse((0, 0, 2 * reach, 2 * reach), fill=1)
    return np.argwhere(np.asarray(box))[:, ::-1] - reach


def _topmost(
    centres: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray, np.ndarray]], size: tuple[int, int]
) -> np.ndarray:
    """(h, w) int32: the highest value that covers each sample; 0 where there is none."""
    width, height = size
    margin = max(int(np.abs(stencil).max()) for _, stencil, _ in layers)
    buffer = np.zeros((height + 4 * margin, width + 4 * margin), np.int32)
    flat, stride = buffer.reshape(-1), buffer.shape[1]
    inside = ((centres >= -margin) & (centres < np.array(size) + margin)).all(1)
    for chosen, stencil, values in layers:
        near = inside[chosen]
        x, y = (centres[chosen[near]] + 2 * margin).T
        start, written = y * stride + x, values[near].astype(np.int32)
        for offset in (stencil @ [1, stride]).tolist():
            np.maximum.at(flat, start + offset, written)
    return buffer[2 * margin : -2 * margin, 2 * margin : -2 * margin]
