"""Maps drawn over pictures, with a shared colour scale, and candidates in the colours of their blocks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fgdemo.errors import UserError

if TYPE_CHECKING:
    from fgdemo.explain.voting_trace import Candidate

# Nine anchors of matplotlib's perceptually uniform maps (CC0), interpolated in between.
COLORMAPS = {
    "magma": "000004 1d1147 51127c 832681 b73779 e75263 fc8961 fec488 fcfdbf",
    "viridis": "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725",
}
UPSAMPLING = ("bilinear", "nearest")
# Radii of a candidate's disc, of the edge around it, of a ring, and of the edge around that, in sides of a cell.
_RADII = (0.35, 0.39, 0.46, 0.5)
_EDGE, _RING = (20, 19, 18, 255), (255, 255, 255, 255)
_FINER = 4


def color_table(colormap: str) -> np.ndarray:
    """256 colours, (256, 3) uint8, dark to light.

    Raises:
        UserError: unknown colour map.
    """
    if colormap not in COLORMAPS:
        raise UserError(f"Unknown colour map {colormap!r}; known: {', '.join(COLORMAPS)}.")
    anchors = np.array([list(bytes.fromhex(code)) for code in COLORMAPS[colormap].split()], dtype=np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def overlay(
    image: Image.Image,
    values: np.ndarray,
    box: tuple[float, float, float, float],
    *,
    opacity: float = 0.7,
    vmin: float = 0.0,
    vmax: float | None = None,
    colormap: str = "magma",
    upsampling: str = "bilinear",
    fade: bool = True,
    max_side: int | None = None,
) -> Image.Image:
    """The whole picture with a map (h, w) drawn over the part that the network saw.

    box is (x0, y0, x1, y1) in pixels of `image` and may reach beyond it; the map covers it exactly, and outside
    nothing changes. Values are coloured from `vmin` to `vmax` (the map's maximum by default). With `fade` a
    value's opacity grows from 0 at `vmin` to `opacity` at `vmax`; without it all of the map has `opacity`.
    `max_side` shrinks a larger picture, and the box with it, before drawing.

    Raises:
        UserError: opacity outside 0 to 1, unknown colour map or upsampling.
    """
    if not 0 <= opacity <= 1:
        raise UserError(f"Opacity goes from 0 to 1, not {opacity}.")
    if upsampling not in UPSAMPLING:
        raise UserError(f"Upsampling is {' or '.join(UPSAMPLING)}, not {upsampling!r}.")
    table = color_table(colormap)
    picture, box = _shrunk(image, box, max_side)
    # Only pixels whose centre lies in the box.
    left, top = (max(0, math.ceil(edge - 0.5)) for edge in box[:2])
    right = min(picture.width, math.floor(box[2] - 0.5) + 1)
    bottom = min(picture.height, math.floor(box[3] - 0.5) + 1)
    if right <= left or bottom <= top:
        return picture
    h, w = values.shape
    rows = _resampling((top, bottom), (box[1], box[3]), h, upsampling)
    columns = _resampling((left, right), (box[0], box[2]), w, upsampling)
    level = _unit(np.asarray(values, dtype=np.float32), vmin, vmax)
    index = (rows @ level @ columns.T * 255 + 0.5).astype(np.uint8)
    heat = Image.fromarray(index)
    heat.putpalette(table.tobytes())
    strength = np.arange(256) if fade else np.full(256, 255)
    mask = Image.fromarray((strength * opacity + 0.5).astype(np.uint8)[index])
    picture.paste(heat.convert("RGB"), (left, top), mask)
    return picture


def block_colors(count: int) -> np.ndarray:
    """A colour for each of so many blocks in turn, (count, 3) uint8, dark to light, for the colour-blind too."""
    # The darkest and the lightest colours would be lost on a black or a white page.
    return color_table("viridis")[np.linspace(20, 250, count).round().astype(int)]


def mark_candidates(
    image: Image.Image,
    candidates: Iterable[Candidate],
    grid: tuple[int, int],
    box: tuple[float, float, float, float],
    *,
    colors: np.ndarray,
    opacity: float = 0.9,
) -> Image.Image:
    """The whole picture with a disc on every patch that was a candidate, with a ring where it was refined.

    (h, w) cells divide box, (x0, y0, x1, y1) in pixels of `image`, which may reach beyond it; a disc fills its cell,
    an ellipse where that is no square. It has the colour of the block, `colors` (L, 3) uint8; a patch that several
    blocks chose is divided among them, clockwise from the top. Merged tokens have no patch and are not drawn.

    Raises:
        UserError: opacity outside 0 to 1.
    """
    if not 0 <= opacity <= 1:
        raise UserError(f"Opacity goes from 0 to 1, not {opacity}.")
    cells: dict[tuple[int, int], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.y is not None:
            cells[candidate.y, candidate.x].append(candidate)
    picture = image.convert("RGB").copy()
    width, height = (box[2] - box[0]) / grid[1], (box[3] - box[1]) / grid[0]
    for (y, x), chosen in cells.items():
        left, top = box[0] + x * width, box[1] + y * height
        at = math.floor(left), math.floor(top)
        size = math.ceil(left + width) - at[0], math.ceil(top + height) - at[1]
        if at[0] >= picture.width or at[1] >= picture.height or at[0] + size[0] <= 0 or at[1] + size[1] <= 0:
            continue
        disc = _disc(size, (left + width / 2 - at[0], top + height / 2 - at[1]), (width, height), chosen, colors)
        picture.paste(disc, at, disc.getchannel("A").point(lambda alpha: round(alpha * opacity)))
    return picture


def _disc(
    size: tuple[int, int],
    centre: tuple[float, float],
    cell: tuple[float, float],
    chosen: list[Candidate],
    colors: np.ndarray,
) -> Image.Image:
    """The candidates of one cell, RGBA, around `centre` in pixels."""
    layer = Image.new("RGBA", (size[0] * _FINER, size[1] * _FINER))
    draw = ImageDraw.Draw(layer)
    inner, edge, ring, outer = (
        [(c + way * radius * side) * _FINER for way in (-1, 1) for c, side in zip(centre, cell, strict=True)]
        for radius in _RADII
    )
    turn = 360 / len(chosen)
    sectors = [(candidate, i * turn - 90, (i + 1) * turn - 90) for i, candidate in enumerate(chosen)]
    for candidate, start, end in sectors:
        if candidate.refined is not None:
            draw.pieslice(outer, start, end, fill=_EDGE)
    for candidate, start, end in sectors:
        if candidate.refined is not None:
            draw.pieslice(ring, start, end, fill=_RING)
    draw.ellipse(edge, fill=_EDGE)
    for candidate, start, end in sectors:
        draw.pieslice(inner, start, end, fill=tuple(colors[candidate.block].tolist()))
    return layer.reduce(_FINER)


def color_bar(
    vmin: float,
    vmax: float,
    *,
    colormap: str = "magma",
    size: tuple[int, int] = (256, 14),
    label: str = "",
) -> Image.Image:
    """A horizontal scale with its ends in figures and an optional label between them, on white.

    Raises:
        UserError: unknown colour map.
    """
    width, height = size
    ramp = np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (height, 1))
    bar = Image.fromarray(color_table(colormap)[ramp])
    font = ImageFont.load_default(12)
    canvas = Image.new("RGB", (width, height + 18), "white")
    canvas.paste(bar, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for text, x, anchor in ((f"{vmin:.3g}", 0, "la"), (label, width // 2, "ma"), (f"{vmax:.3g}", width - 1, "ra")):
        draw.text((x, height + 2), text, fill="black", font=font, anchor=anchor)
    return canvas


def _unit(values: np.ndarray, vmin: float, vmax: float | None) -> np.ndarray:
    vmax = float(values.max()) if vmax is None else vmax
    if vmax <= vmin:
        return np.zeros_like(values)
    return np.clip((values - vmin) / (vmax - vmin), 0, 1)


def _shrunk(
    image: Image.Image, box: tuple[float, float, float, float], max_side: int | None
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    scale = 1.0 if max_side is None else max_side / max(image.size)
    if scale >= 1:
        return image.convert("RGB").copy(), box
    size = tuple(max(1, round(side * scale)) for side in image.size)
    sx, sy = size[0] / image.width, size[1] / image.height
    small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=2)
    return small, (box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy)


def _resampling(pixels: tuple[int, int], span: tuple[float, float], cells: int, how: str) -> np.ndarray:
    """Weights (pixels, cells) of the cells at each pixel's centre, where `cells` cells divide `span` evenly."""
    at = (np.arange(*pixels) + 0.5 - span[0]) / (span[1] - span[0]) * cells
    weights = np.zeros((len(at), cells), dtype=np.float32)
    each = np.arange(len(at))
    if how == "nearest":
        weights[each, np.clip(at.astype(int), 0, cells - 1)] = 1
        return weights
    at = np.clip(at - 0.5, 0, cells - 1)
    low = np.minimum(at.astype(int), cells - 1)
    high = np.minimum(low + 1, cells - 1)
    share = (at - low).astype(np.float32)
    np.add.at(weights, (each, low), 1 - share)
    np.add.at(weights, (each, high), share)
    return weights
