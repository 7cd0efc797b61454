"""The gallery in the plane as a picture: marks, legend, names, thumbnails."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw, ImageFont
from support.plots import figure_of

from fgdemo.palette import PALETTE, SYMBOLS, colour, symbol
from fgdemo.plot import picture as picture_module
from fgdemo.plot.marks import SUPERSAMPLING, draw_marks
from fgdemo.plot.picture import THUMBNAIL, fit, plot_picture


def painted(points: np.ndarray, styles: np.ndarray, size: tuple[int, int], radius: float) -> Image.Image:
    """The same marks by Pillow one after another, on a larger canvas since it rounds otherwise below 0."""
    scale, margin = SUPERSAMPLING, 20
    canvas = Image.new("RGB", ((size[0] + 2 * margin) * scale, (size[1] + 2 * margin) * scale), "white")
    pen = ImageDraw.Draw(canvas)
    for (x, y), style in zip(np.rint(points * scale) + margin * scale, styles, strict=True):
        for reach, ink in ((round((radius + 0.5) * scale), "white"), (round(radius * scale), colour(style))):
            corners = SYMBOLS[symbol(style)]
            if corners:
                pen.polygon([(x + reach * (2 * a - 1), y + reach * (2 * b - 1)) for a, b in corners], fill=ink)
            else:
                pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=ink)
    return canvas.reduce(scale).crop((margin, margin, margin + size[0], margin + size[1]))


def test_marks_are_those_of_pillow_one_after_another() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-5, [125, 305], (300, 2))
    styles = rng.integers(0, len(PALETTE) * len(SYMBOLS), 300)
    drawn = draw_marks(points, styles, (120, 300), radius=5, outline=0.5, paper="#ffffff")
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(painted(points, styles, (120, 300), 5)))


@pytest.mark.parametrize(
    ("style", "area"),
    [(0, np.pi / 4), (24, 1 / 2), (48, 0.84**2), (72, 0.44), (96, 2 * 0.36 - 0.36**2)],
)
def test_marks_have_the_area_and_colour_of_their_shape(style: int, area: float) -> None:
    drawn = np.asarray(
        draw_marks(np.array([[50.0, 50.0]]), np.array([style]), (100, 100), radius=30, outline=0), np.float64
    )
    ink = np.array(ImageColor.getrgb(colour(style)), np.float64)
    np.testing.assert_array_equal(drawn[52, 50], ink)
    channel = int(np.argmin(ink))
    covered = (255 - drawn[..., channel]).sum() / (255 - ink[channel])
    assert covered == pytest.approx(area * 60**2, rel=0.04)


def test_edges_are_smooth() -> None:
    drawn = np.asarray(draw_marks(np.array([[20.0, 20.0]]), np.array([0]), (40, 40), radius=9, outline=0))
    assert len(np.unique(drawn[..., 0])) > 8


def test_a_mark_looks_the_same_across_bands_and_is_cut_off_at_edges() -> None:
    def at(y: float, height: int = 700) -> np.ndarray:
        return np.asarray(draw_marks(np.array([[20.0, y]]), np.array([0]), (40, height), radius=9, outline=1))

    np.testing.assert_array_equal(at(256.0)[240:272], at(100.0)[84:116])
    np.testing.assert_array_equal(at(0.0)[:16], at(100.0)[100:116])
    np.testing.assert_array_equal(at(700.0)[-16:], at(100.0)[84:100])
    assert (at(-500.0) == 255).all()


def test_points_fit_their_box_with_one_scale_and_y_upwards() -> None:
    points = np.random.default_rng(0).normal(size=(50, 2)) * [3, 1] + [7, -2]
    placed = fit(points, (400, 300), 20)
    assert placed.min() >= 20 - 1e-9
    assert (placed <= [380 + 1e-9, 280 + 1e-9]).all()
    assert np.ptp(placed[:, 0]) == pytest.approx(360)
    moves, drawn = np.diff(points, axis=0), np.diff(placed, axis=0)
    scale = drawn[:, 0] / moves[:, 0]
    np.testing.assert_allclose(scale, scale[0])
    np.testing.assert_allclose(drawn[:, 1], -scale[0] * moves[:, 1])
    np.testing.assert_array_equal(fit(np.full((3, 2), 5.0), (400, 300), 20), np.full((3, 2), [200, 150]))


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Every text that is drawn, with its width in pixels."""
    found: list[tuple[str, float]] = []
    draw = ImageDraw.ImageDraw.text

    def record(self: Any, at: Any, text: str, *args: Any, font: Any, **kwargs: Any) -> None:
        found.append((text, font.getlength(text)))
        draw(self, at, text, *args, font=font, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return found


def test_the_picture_says_what_it_shows(digits: Path, texts: list[tuple[str, float]]) -> None:
    figure = figure_of(digits, colour="fine", projection="tsne", max_points=30, seed=2)
    assert plot_picture(figure, (700, 500)).size == (700, 500)
    shown = [text for text, _ in texts]
    assert "digits · 30 pictures · t-SNE · coloured by fine · seed 2" in shown
    assert "A sample of 30 of 200 pictures, drawn with seed 2." in shown
    for group in figure.groups:
        assert f"{group.parent} · {group.name}" in shown
        assert str(group.size) in shown


def test_the_legend_ends_with_how_many_more(
    digits: Path, texts: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figure_of(digits)
    labels = [f"{group.parent} · {group.name}" for group in figure.groups]
    assert len(labels) == 8

    def named() -> list[str]:
        texts.clear()
        plot_picture(figure, (1000, 800))
        return [text for text, _ in texts if text in labels or text.startswith("and ")]

    assert named() == labels
    monkeypatch.setattr(picture_module, "LEGEND_ENTRIES", 3)
    assert named() == [*labels[:3], "and 5 more"]


def test_a_low_picture_names_as_many_groups_as_have_room(digits: Path, texts: list[tuple[str, float]]) -> None:
    figure = figure_of(digits)
    figure = replace(figure, groups=figure.groups * 5)
    plot_picture(figure, (1000, 320))
    more = [int(text.split()[1]) for text, _ in texts if text.startswith("and ")]
    named = [text for text, _ in texts if re.fullmatch(r"\d · \d", text)]
    assert 0 < len(named) < 30
    assert len(named) + more[0] == 40


def test_long_and_hostile_names_are_cut_to_one_line_that_fits(hostile: Path, texts: list[tuple[str, float]]) -> None:
    figure = figure_of(hostile, name="long " * 3000)
    plot_picture(figure, (640, 480))
    assert max(width for _, width in texts) <= 640 - 20
    assert [text for text, _ in texts if text.startswith("long long") and text.endswith("…")]
    assert not [text for text, _ in texts if not text.isprintable()]


def test_names_beyond_latin_ask_for_a_font_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    stand_in, truetype = ImageFont.load_default(21), ImageFont.truetype

    def record(font: Any, size: int, **options: Any) -> Any:
        if not isinstance(font, str):  # Pillow's own
            return truetype(font, size, **options)
        asked.append(font)
        if len(asked) < 2:
            raise OSError
        return stand_in

    monkeypatch.setattr(ImageFont, "truetype", record)
    assert picture_module.font_for("Größe, moth…", 20).size == 20
    assert asked == []
    assert picture_module.font_for("蛾", 20).size == 21
    assert len(asked) == 2
    monkeypatch.setattr(picture_module, "_FONTS", ())
    assert picture_module.font_for("蛾", 20).size == 20


def test_points_have_the_colours_of_their_groups(digits: Path) -> None:
    drawn = np.asarray(plot_picture(figure_of(digits, colour="class"), (900, 700))).reshape(-1, 3)
    present = set(map(tuple, np.unique(drawn, axis=0).tolist()))
    assert {ImageColor.getrgb(PALETTE[i]) for i in range(4)} <= present
    assert ImageColor.getrgb(PALETTE[5]) not in present


def test_thumbnails_lie_at_the_most_central_pictures(
    tiny: Path, texts: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figure_of(tiny)
    plain = np.asarray(plot_picture(figure, (900, 700)))
    placed = []
    paste = Image.Image.paste

    def record(self: Image.Image, source: Any, box: Any = None, *rest: Any) -> None:
        if isinstance(source, Image.Image) and max(source.size) == round(THUMBNAIL * 700 / 1200):
            placed.append((box, np.asarray(source)))
        paste(self, source, box, *rest)

    monkeypatch.setattr(Image.Image, "paste", record)
    drawn = np.asarray(plot_picture(figure, (900, 700), thumbnails=True))
    assert not np.array_equal(plain, drawn)
    assert 1 <= len(placed) <= 3
    note = f"Pictures: the most central one of {len(placed)} of 3 subclasses, as many as have room."
    assert note in [text for text, _ in texts]
    best = [int(figure.gallery.prototypes(i, 1)[0]) for i in (3, 5, 8)]
    for (left, top), pixels in placed:
        height, width = pixels.shape[:2]
        np.testing.assert_array_equal(drawn[top : top + height, left : left + width], pixels)
        resized = [
            np.asarray(figure.gallery.thumbnail(row).resize((width, height), Image.Resampling.LANCZOS)) for row in best
        ]
        assert any(np.array_equal(pixels, candidate) for candidate in resized)
    corners = np.array([box for box, _ in placed])
    gaps = np.abs(corners[:, None] - corners[None]).max(2) + 1000 * np.eye(len(corners))
    assert (gaps >= round(THUMBNAIL * 700 / 1200)).all()


def test_the_picture_is_the_same_every_time(tiny: Path) -> None:
    first, second = (plot_picture(figure_of(tiny), (640, 480), thumbnails=True).tobytes() for _ in range(2))
    assert first == second
