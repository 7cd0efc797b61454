"""A figure as a picture, drawn with Pillow alone: for papers, issues and chats."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fgdemo.clustering.checks import as_count
from fgdemo.errors import UserError
from fgdemo.palette import colour
from fgdemo.plot.colouring import Group
from fgdemo.plot.figure import Figure
from fgdemo.plot.marks import draw_marks

SIZE = (1600, 1200)
SIDES = (320, 8000)
LEGEND_ENTRIES = 48
"""Most groups that the legend names."""
THUMBNAIL = 52
"""Longer side of a thumbnail, of 1200 pixels."""

PAPER, INK, QUIET, LINE = "#ffffff", "#292524", "#78716c", "#e5e2dc"
# Asked in turn for names beyond the Latin letters of Pillow's own font; found where the system has them.
_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "msyh.ttc")
_LATIN = 0x250
_LONGEST = 200


def plot_picture(figure: Figure, size: tuple[int, int] = SIZE, *, thumbnails: bool = False) -> Image.Image:
    """The RGB picture: title, facts, points, legend, notes.

    Args:
        size: width and height in pixels.
        thumbnails: also show the most central picture of each subclass, at its own place in the plane.

    Raises:
        UserError: a size out of range, or thumbnails of a gallery without pictures or subclasses.
    """
    width, height = (as_count(side, "a side of --size", *SIDES) for side in size)
    prototypes = _prototypes(figure) if thumbnails else []
    unit = min(width, height) / 1200
    text, gap = max(11, round(19 * unit)), max(10, round(36 * unit))
    picture = Image.new("RGB", (width, height), PAPER)
    pen = _Pen(picture, text)
    pen.line(figure.title, (gap, gap), width - 2 * gap, scale=1.7)
    pen.line(" · ".join(figure.facts), (gap, gap + round(2.4 * text)), width - 2 * gap, colour=QUIET)
    line = round(1.4 * text)
    lines = len(figure.notes) + bool(prototypes)
    bottom = height - gap - (lines * line + gap // 2 if lines else 0)
    top, legend = gap + round(4.6 * text), pen.legend_width(figure.groups, round(0.3 * width))
    box = (gap, top, width - gap - legend - gap // 2, bottom)
    area = (box[2] - box[0], box[3] - box[1])
    pen.legend(figure.groups, (box[2] + gap // 2, top), legend, area[1])
    centres = fit(figure.projection.points, area, 1.4 * gap)
    styles = np.array([group.style for group in figure.groups])[figure.codes]
    radius = max(1.6, min(5.5, 11 - 2.1 * np.log10(len(centres) + 1))) * max(unit, 0.5)
    outline = 0.0 if len(centres) > 5000 else 0.5
    picture.paste(draw_marks(centres, styles, area, radius=radius, outline=outline, paper=PAPER), box[:2])
    notes = list(figure.notes)
    if prototypes:
        side = round(THUMBNAIL * max(unit, 0.5))
        shown = _paste_prototypes(picture, figure, prototypes, centres + box[:2], box, side)
        notes.append(
            f"Pictures: the most central one of {shown} of {len(prototypes)} subclasses, as many as have room."
        )
    for number, note in enumerate(notes):
        pen.line(note, (gap, height - gap - (lines - number) * line), width - 2 * gap, colour=QUIET, scale=0.85)
    ImageDraw.Draw(picture).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=LINE)
    return picture


class _Pen:
    """Lines of text and a legend on a picture, every text shortened to the room it has."""

    def __init__(self, picture: Image.Image, size: int) -> None:
        self.draw, self.size, self.row = ImageDraw.Draw(picture), size, round(1.26 * size)
        self.picture = picture

    def line(
        self, text: str, at: tuple[int, int], room: int, *, colour: str = INK, scale: float = 1, anchor: str = "la"
    ) -> None:
        font, text = self._fitted(text, room, scale)
        self.draw.text(at, text, font=font, fill=colour, anchor=anchor)

    def _fitted(self, text: str, room: float, scale: float = 1) -> tuple[ImageFont.ImageFont, str]:
        """The text on one line, without what no font shows, its end cut off where it is too long."""
        text = " ".join("".join(c if c.isprintable() else " " for c in text[:_LONGEST]).split())
        font = font_for(text, round(scale * self.size))
        if font.getlength(text) > room:
            lengths = [font.getlength(text[:n] + "…") for n in range(len(text))]
            text = text[: max(0, int(np.searchsorted(lengths, room, side="right")) - 1)] + "…"
        return font, text

    def legend_width(self, groups: tuple[Group, ...], most: int) -> int:
        """What the longest name, its number and its mark take, at most `most`."""
        fitted = [self._fitted(_label(group), most) for group in groups[:LEGEND_ENTRIES]]
        return min(most, round(max(font.getlength(text) for font, text in fitted) + 6 * self.size))

    def legend(self, groups: tuple[Group, ...], at: tuple[int, int], width: int, height: int) -> None:
        """A mark, a name and a size a row, as many as have room and at most LEGEND_ENTRIES; the others are counted."""
        (x, y), mark, right = at, 0.36 * self.size, at[0] + width
        rows = max(1, height // self.row)
        shown = len(groups) if len(groups) <= min(rows, LEGEND_ENTRIES) else max(0, min(rows - 1, LEGEND_ENTRIES))
        for number, group in enumerate(groups[:shown]):
            middle = y + number * self.row + self.row // 2
            box = (round(1.2 * self.size), self.row)
            centre = np.array([[box[0] / 2, box[1] / 2]])
            sample = draw_marks(centre, np.array([group.style]), box, radius=mark, outline=0, paper=PAPER)
            self.picture.paste(sample, (x, y + number * self.row))
            count = f"{group.size:,}"
            taken = self._fitted(count, width, 0.85)[0].getlength(count)
            self.line(count, (right, middle), width, colour=QUIET, scale=0.85, anchor="rm")
            room = round(width - 1.5 * self.size - taken - 0.6 * self.size)
            self.line(_label(group), (x + round(1.5 * self.size), middle), room, anchor="lm")
        if shown < len(groups):
            more = f"and {len(groups) - shown:,} more"
            self.line(
                more,
                (x + round(1.5 * self.size), y + shown * self.row + self.row // 2),
                width,
                colour=QUIET,
                anchor="lm",
            )


def _label(group: Group) -> str:
    return f"{group.parent} · {group.name}" if group.parent else group.name


def font_for(text: str, size: int) -> ImageFont.ImageFont:
    """Pillow's own font, or one of the system's for letters that it lacks, where there is one."""
    if any(ord(c) >= _LATIN and not 0x2000 <= ord(c) < 0x2070 for c in text):
        for name in _FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)


def fit(points: np.ndarray, size: tuple[int, int], margin: float) -> np.ndarray:
    """(n, 2) pixels in a box of `size`: one scale for both axes, y upwards, centred."""
    points = np.asarray(points, np.float64)
    low, high = points.min(0), points.max(0)
    room = np.maximum(np.array(size) - 2 * margin, 1)
    span = np.maximum(high - low, 1e-12)
    scale = (room / span).min() if (high > low).any() else 1.0
    return np.array(size) / 2 + (points - (low + high) / 2) * scale * [1, -1]


def _prototypes(figure: Figure) -> list[int]:
    """Points of the most central training picture of each subclass that is drawn, those of large subclasses first.

    Raises:
        UserError: the gallery has no subclasses, or no picture of them.
    """
    gallery, rows = figure.gallery, figure.rows
    pictured = np.flatnonzero(np.diff(gallery.thumbnail_offsets)[rows])
    points = np.full(len(gallery), -1)
    points[rows[pictured]] = pictured
    ids, sizes = np.unique(gallery.subclass_id[rows], return_counts=True)
    found: list[int] = []
    for subclass_id in ids[np.argsort(-sizes, kind="stable")].tolist():
        if subclass_id >= 0:
            ranked = points[gallery.prototypes(subclass_id, len(gallery))]
            found += ranked[ranked >= 0][:1].tolist()
    if not found:
        raise UserError("This gallery holds no pictures of subclasses: leave --thumbnails out.")
    return found


def _paste_prototypes(
    picture: Image.Image,
    figure: Figure,
    prototypes: list[int],
    centres: np.ndarray,
    box: tuple[int, int, int, int],
    side: int,
) -> int:
    """Each in a frame of its point's colour; one that would cover another one is left out. How many there are."""
    pen, placed, frame = ImageDraw.Draw(picture), np.empty((0, 2)), max(2, side // 20)
    for point in prototypes:
        low, high = np.array(box[:2]) + side // 2 + frame, np.array(box[2:]) - side // 2 - frame
        centre = np.clip(np.rint(centres[point]), low, high)
        if (np.abs(placed - centre).max(1) < side + 2 * frame).any():
            continue
        thumbnail = figure.gallery.thumbnail(int(figure.rows[point]))
        thumbnail = thumbnail.resize(_inside(thumbnail.size, side), Image.Resampling.LANCZOS)
        corner = (centre - np.array(thumbnail.size) // 2).astype(int)
        edge = corner + thumbnail.size + frame - 1
        pen.rectangle((*(corner - frame), *edge), fill=colour(figure.groups[figure.codes[point]].style))
        picture.paste(thumbnail, tuple(corner.tolist()))
        placed = np.vstack([placed, centre])
    return len(placed)


def _inside(size: tuple[int, int], side: int) -> tuple[int, int]:
    longest = max(size)
    return max(1, round(size[0] * side / longest)), max(1, round(size[1] * side / longest))
