"""A sheet of pictures with what the network takes them for and what they are."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fgdemo.checkpoint.schema import title
from fgdemo.data import crop_box, keyed_permutation
from fgdemo.errors import UserError
from train.evaluation.ruler import Ruler
from train.evaluation.subject import Subject

# Pixels of the sheet.
_SIDE, _FRAME, _GAP, _MARGIN, _LINE, _HEADING = 160, 4, 22, 32, 19, 96
_TILE = _SIDE + 4 * _FRAME
_PAPER, _INK, _FAINT, _RIGHT, _WRONG = "#ffffff", "#1f2328", "#656d76", "#1a7f37", "#cf222e"
_MOST = 1000
# Pillow's own font is the same everywhere and holds little more than ASCII. These, where the system has one, hold more.
_WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf", "arial.ttf")


@dataclass
class ExamplesOptions:
    """A sheet of examples"""

    examples: str | None = None
    """PNG to draw pictures of the split into, with predicted and actual names"""
    examples_count: int = 48
    """pictures on the sheet"""
    examples_errors: float = 0.5
    """share of them that are wrongly classified, where there are so many"""
    examples_seed: int = 0
    """draws the pictures"""

    def __post_init__(self) -> None:
        if self.examples is not None and Path(self.examples).suffix.lower() != ".png":
            raise UserError(f"--examples draws a .png, not {self.examples!r}.")
        if not 1 <= self.examples_count <= _MOST:
            raise UserError(f"--examples-count goes from 1 to {_MOST}, not {self.examples_count}.")
        if not 0 <= self.examples_errors <= 1:
            raise UserError(f"--examples-errors is a share from 0 to 1, not {self.examples_errors}.")


class Tile(NamedTuple):
    """One picture, the part of it that the network sees, and what is written below it."""

    picture: Image.Image
    predicted: str
    actual: str
    probability: float

    @property
    def right(self) -> bool:
        return self.predicted == self.actual


def measure(subject: Subject, options: ExamplesOptions) -> dict[str, Any]:
    """Draw the sheet, on the main process alone, and say how many pictures are on it.

    Raises:
        UserError: the file cannot be written.
    """
    output = subject.outputs(subject.split)
    probability, predicted = output.logits.softmax(dim=1).max(dim=1)
    correct = (predicted == output.labels).numpy()
    chosen = choose(correct, options.examples_count, options.examples_errors, options.examples_seed)
    if subject.accelerator.is_main_process:
        names = subject.catalogue.class_names(subject.level)
        tiles = [
            Tile(
                _seen(subject, int(output.index[row])),
                names[int(predicted[row])],
                names[int(output.labels[row])],
                float(probability[row]),
            )
            for row in chosen.tolist()
        ]
        n, hits = len(correct), int(correct.sum())
        shown = int(correct[chosen].sum())
        where = f"{Path(subject.target).name} on {subject.catalogue.name} {subject.split}"
        heading = (
            title(subject.checkpoint.config),
            f"{where}: {hits} of {n} pictures right ({hits / n:.2%})",
            f"Drawn at random: {shown} of the {hits} right, {len(chosen) - shown} of the {n - hits} wrong",
        )
        _save(draw_sheet(tiles, heading), Path(options.examples))
    return {"file": Path(options.examples).name, "pictures": len(chosen), "errors": int((~correct[chosen]).sum())}


def choose(correct: np.ndarray, count: int, errors: float, seed: int) -> np.ndarray:
    """Positions in (N,) `correct`, wrong ones first: a share `errors` of them, or what there is of either sort."""
    order = keyed_permutation(len(correct), "examples", seed)
    wrong, right = order[~correct[order]], order[correct[order]]
    wanted = max(round(errors * count), count - len(right))
    wrong = wrong[:wanted]
    return np.concatenate([wrong, right[: count - len(wrong)]])


def draw_sheet(tiles: list[Tile], heading: tuple[str, str, str]) -> Image.Image:
    """Tiles in rows, more across than down, under three lines of heading.

    Right and wrong differ in colour, in the sign beside the name, and in the frame: one line or dashes.
    """
    columns = max(4, math.ceil(math.sqrt(len(tiles) * 4 / 3)))
    rows = math.ceil(len(tiles) / columns)
    step = _TILE + _GAP, _TILE + 2 * _LINE + _GAP + 8
    size = 2 * _MARGIN + columns * step[0] - _GAP, _MARGIN + _HEADING + rows * step[1] + _MARGIN - _GAP
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for text, y, points, ink in zip(heading, (0, 34, 58), (24, 16, 14), (_INK, _INK, _FAINT), strict=True):
        _write(draw, (_MARGIN, _MARGIN + y), text, points, ink, size[0] - 2 * _MARGIN)
    for i, tile in enumerate(tiles):
        corner = _MARGIN + i % columns * step[0], _MARGIN + _HEADING + i // columns * step[1]
        _draw_tile(sheet, draw, tile, corner)
    return sheet


def shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """One line of at most `width` pixels: names that look alike often differ at their end, so the middle goes."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        tail = kept // 2
        short = f"{text[: kept - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"
        if font.getlength(short) <= width:
            return short
    return "…"


def font_for(text: str, points: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font for ASCII, else the first that the system has of some that hold more."""
    return _font(points, text.isascii())


def lines(result: dict[str, Any]) -> list[str]:
    """What was drawn."""
    return [f"  examples     {result['pictures']} pictures, {result['errors']} of them errors, in {result['file']}"]


def _seen(subject: Subject, index: int) -> Image.Image:
    """The part of a picture that the network sees, white where that reaches beyond it."""
    picture = subject.catalogue.reader(index)
    left, top, right, bottom = (round(edge) for edge in crop_box(picture.size, subject.preprocessing))
    crop = Image.new("RGB", (max(1, right - left), max(1, bottom - top)), _PAPER)
    crop.paste(picture, (-left, -top))
    return crop


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int]) -> None:
    x, y = corner
    ink = _RIGHT if tile.right else _WRONG
    scale = _SIDE / max(tile.picture.size)
    size = tuple(max(1, round(side * scale)) for side in tile.picture.size)
    picture = tile.picture.resize(size, Image.Resampling.LANCZOS)
    sheet.paste(picture, (x + (_TILE - size[0]) // 2, y + (_TILE - size[1]) // 2))
    draw.rectangle((x, y, x + _TILE - 1, y + _TILE - 1), outline=ink, width=_FRAME)
    if not tile.right:
        _break_frame(draw, x, y)
    text = y + _TILE + 6
    share = f"{tile.probability:.1%}"
    room = _TILE - draw.textlength(share, font=_font(14, True)) - 26
    sheet.paste(ink, (x, text + 1), _sign(tile.right))
    _write(draw, (x + 19, text), tile.predicted, 14, ink, room)
    draw.text((x + _TILE, text), share, fill=_FAINT, font=_font(14, True), anchor="ra")
    _write(draw, (x + 19, text + _LINE), f"is {tile.actual}", 14, _FAINT if tile.right else _INK, _TILE - 19)


def _break_frame(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """Dashes: gaps of the paper's colour in all four sides, none in a corner."""
    for start in range(13, _TILE - 13, 16):
        across, down = (x + start, x + start + 5), (y + start, y + start + 5)
        for edge in (0, _TILE - _FRAME):
            draw.rectangle((across[0], y + edge, across[1], y + edge + _FRAME - 1), fill=_PAPER)
            draw.rectangle((x + edge, down[0], x + edge + _FRAME - 1, down[1]), fill=_PAPER)


@lru_cache(maxsize=2)
def _sign(right: bool) -> Image.Image:
    """A tick or a cross of 14 x 14 pixels as a mask; drawn large first, since Pillow's lines have hard edges."""
    mask = Image.new("L", (112, 112))
    draw = ImageDraw.Draw(mask)
    strokes = [[(12, 60), (42, 90), (98, 22)]] if right else [[(18, 18), (94, 94)], [(94, 18), (18, 94)]]
    for points in strokes:
        draw.line(points, fill=255, width=20, joint="curve")
    return mask.resize((14, 14), Image.Resampling.LANCZOS)


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, points: int, ink: str, width: float) -> None:
    font = font_for(text, points)
    draw.text(at, shortened(text, font, width), fill=ink, font=font)


@lru_cache(maxsize=16)
def _font(points: int, plain: bool) -> ImageFont.FreeTypeFont:
    for name in () if plain else _WIDE_FONTS:
        try:
            return ImageFont.truetype(name, points)
        except OSError:
            continue
    return ImageFont.load_default(points)


def _save(sheet: Image.Image, path: Path) -> None:
    """In one step, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(temporary, "PNG")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"The sheet cannot be written to {path} ({error.strerror}): choose another file.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


RULER = Ruler("examples", ExamplesOptions, measure, lines)
