"""Flat shapes at three times the size, soft relief and cast shadows at the final size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from fgdemo.data.scenes.geometry import Outline

SIZE = 128
SUPERSAMPLING = 3

Colour = tuple[int, int, int]

# Shadows fall towards blue and lights towards yellow, as under an open sky.
_SHADE_TINT = np.array([1.0, 0.95, 0.80], dtype=np.float32)
_LIGHT_TINT = np.array([1.0, 0.96, 0.82], dtype=np.float32)


@dataclass
class Mark:
    """A flat marking, cut off at the outline of the piece it lies on."""

    outline: Outline
    colour: Colour
    part: bool = False


@dataclass
class Piece:
    """One sheet of the paper-cut: a silhouette made of outlines, its markings, and how it stands out.

    relief: strength of the rounded shading (0 = flat); lift: strength of the shadow it throws on what lies
    below; part: whether it belongs to the detail that tells the subclasses apart.
    """

    outlines: list[Outline]
    colour: Colour
    marks: list[Mark] = field(default_factory=list)
    relief: float = 0.0
    lift: float = 0.0
    part: bool = False

    def transformed(self, matrix: np.ndarray, offset: np.ndarray) -> Piece:
        """The piece with every vertex v replaced by v @ matrix + offset."""
        return Piece(
            [o @ matrix + offset for o in self.outlines],
            self.colour,
            [Mark(m.outline @ matrix + offset, m.colour, m.part) for m in self.marks],
            self.relief,
            self.lift,
            self.part,
        )


def blur(mask: np.ndarray, radius: int) -> np.ndarray:
    """Twice box-blurred uint8 mask as float32 in [0, 1]; integer sums keep it the same on every machine.

    The outermost 2 * radius + 2 rows and columns are taken to be margin: nothing is blurred into them.
    """
    total = mask.astype(np.int64)
    width = 2 * radius + 1
    for _ in range(2):
        run = total.cumsum(axis=0)
        total = np.zeros_like(run)
        np.subtract(run[width:], run[:-width], out=total[radius + 1 : -radius])
        run = total.cumsum(axis=1)
        total = np.zeros_like(run)
        np.subtract(run[:, width:], run[:, :-width], out=total[:, radius + 1 : -radius])
    return total.astype(np.float32) * np.float32(1 / (255.0 * width**4))


class Painter:
    """Paints pieces from back to front; coordinates are pixels of the final SIZE x SIZE picture.

    light: unit vector (x, y) towards the light. Everything is integer or elementwise IEEE arithmetic.
    """

    def __init__(self, ground: Image.Image, light: tuple[float, float]) -> None:
        self.canvas = ground.copy()
        self.light = light
        self.relief = np.zeros((SIZE, SIZE), dtype=np.float32)
        self.cover = np.zeros((SIZE, SIZE), dtype=np.float32)

    def flat(self, outline: Outline, colour: Colour) -> None:
        """An unshaded shape straight onto the canvas."""
        ImageDraw.Draw(self.canvas).polygon(_vertices(outline, (0, 0)), fill=colour)

    def piece(self, piece: Piece, *, is_object: bool) -> None:
        """Paint one piece; `is_object` adds it to the object's coverage, otherwise it hides the object."""
        bounds = _pixel_box(piece.outlines)
        if bounds is None:
            return
        x0, y0, x1, y1 = bounds
        s = SUPERSAMPLING
        origin = (x0 * s, y0 * s)
        size = ((x1 - x0) * s, (y1 - y0) * s)
        mask = Image.new("L", size)
        pen = ImageDraw.Draw(mask)
        for outline in piece.outlines:
            pen.polygon(_vertices(outline, origin), fill=255)
        self.canvas.paste(piece.colour, origin, mask)
        for mark in piece.marks:
            self._mark(mark, mask, origin)
        small = np.asarray(mask.reduce(s))
        coverage = small.astype(np.float32) / np.float32(255)
        if piece.relief or piece.lift:
            self._shade(small, x0, y0, piece.relief, piece.lift)
        else:
            self.relief[y0:y1, x0:x1] *= 1 - coverage
        view = self.cover[y0:y1, x0:x1]
        view *= 1 - coverage
        if is_object:
            view += coverage

    def _mark(self, mark: Mark, clip: Image.Image, origin: tuple[int, int]) -> None:
        s = SUPERSAMPLING
        bounds = _pixel_box([mark.outline])
        if bounds is None:
            return
        x0 = max(bounds[0] * s, origin[0])
        y0 = max(bounds[1] * s, origin[1])
        x1 = min(bounds[2] * s, origin[0] + clip.width)
        y1 = min(bounds[3] * s, origin[1] + clip.height)
        if x1 <= x0 or y1 <= y0:
            return
        mask = Image.new("L", (x1 - x0, y1 - y0))
        ImageDraw.Draw(mask).polygon(_vertices(mark.outline, (x0, y0)), fill=255)
        inside = clip.crop((x0 - origin[0], y0 - origin[1], x1 - origin[0], y1 - origin[1]))
        self.canvas.paste(mark.colour, (x0, y0), ImageChops.multiply(mask, inside))

    def _shade(self, mask: np.ndarray, x0: int, y0: int, relief: float, lift: float) -> None:
        """Replace the relief under the mask by the piece's own; throw its shadow around it first."""
        height, width = mask.shape
        radius = max(1, min(6, min(height, width) // 7))
        margin = 2 * radius + 2
        padded = np.zeros((height + 2 * margin, width + 2 * margin), dtype=np.uint8)
        padded[margin:-margin, margin:-margin] = mask
        soft = blur(padded, radius)
        lx, ly = self.light
        if lift:
            # The shadow is the blurred silhouette moved away from the light, as far as the margin allows.
            dx, dy = round(-lx * (radius + 0.5)), round(-ly * (radius + 0.5))
            self._darken(soft, x0 - margin + dx, y0 - margin + dy, np.float32(lift))
        cover = mask.astype(np.float32) / np.float32(255)
        target = self.relief[y0 : y0 + height, x0 : x0 + width]
        target *= 1 - cover
        if relief:
            m = margin
            across = soft[m:-m, m + 1 : 1 - m] - soft[m:-m, m - 1 : -m - 1]
            down = soft[m + 1 : 1 - m, m:-m] - soft[m - 1 : -m - 1, m:-m]
            slope = -(across * np.float32(lx) + down * np.float32(ly)) * np.float32(0.42 * radius)
            rim = np.minimum(soft[m:-m, m:-m] - np.float32(0.8), 0) * np.float32(0.10)
            target += cover * (np.float32(relief) * (slope + rim))

    def _darken(self, shadow: np.ndarray, x: int, y: int, depth: np.float32) -> None:
        """Subtract depth * shadow from the relief, the shadow's corner at (x, y)."""
        height, width = shadow.shape
        top, left, bottom, right = max(0, y), max(0, x), min(SIZE, y + height), min(SIZE, x + width)
        if bottom > top and right > left:
            self.relief[top:bottom, left:right] -= depth * shadow[top - y : bottom - y, left - x : right - x]

    def finish(self) -> np.ndarray:
        """(SIZE, SIZE, 3) float32 picture in 0..255 with relief and shadows applied."""
        flat = np.asarray(self.canvas.reduce(SUPERSAMPLING)).astype(np.float32)
        relief = self.relief[..., None]
        dark = np.maximum(relief, np.float32(-0.75))
        dark = np.minimum(dark, 0) * _SHADE_TINT
        light = np.maximum(relief, 0) * _LIGHT_TINT
        return flat * (1 + dark) + (255 - flat) * light


def _vertices(outline: Outline, origin: tuple[int, int]) -> list[float]:
    return (np.rint(outline * SUPERSAMPLING) - origin).ravel().tolist()


def _pixel_box(outlines: Sequence[Outline]) -> tuple[int, int, int, int] | None:
    """Whole-pixel box around the outlines inside the picture, None where nothing is left."""
    vertices = outlines[0] if len(outlines) == 1 else np.concatenate(outlines)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    x0, y0 = (max(0, int(v) - 1) for v in np.floor(low))
    x1, y1 = (min(SIZE, int(v) + 2) for v in np.floor(high))
    return None if x1 <= x0 or y1 <= y0 else (x0, y0, x1, y1)
