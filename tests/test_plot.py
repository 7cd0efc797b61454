"""The gallery in the plane: what is drawn, the page and the picture, and the command."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw, ImageFont
from support.digits_checkpoint import write_digits
from support.pages import HOSTILE, island, rewrite, write_hostile
from tiny_checkpoint import CLASSES, picture, write_tiny

from fgdemo.__main__ import main
from fgdemo.checkpoint import read_checkpoint
from fgdemo.clustering import PROJECTIONS, project2d, reduce
from fgdemo.data import load_catalogue
from fgdemo.gallery import SPLITS, Gallery
from fgdemo.html_page import STATIC, plotly_js
from fgdemo.palette import PALETTE, SYMBOLS, colour, symbol
from fgdemo.plot import page as page_module
from fgdemo.plot import picture as picture_module
from fgdemo.plot.command import plot_parser
from fgdemo.plot.figure import COLOURS, MAX_POINTS, Figure, make_figure
from fgdemo.plot.marks import SUPERSAMPLING, draw_marks
from fgdemo.plot.page import plot_page
from fgdemo.plot.picture import SIZE, THUMBNAIL, fit, plot_picture


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 pictures of four digits in all splits, two subclasses a class."""
    return write_digits(tmp_path_factory.mktemp("plot") / "digits")


@pytest.fixture(scope="module")
def parity(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures under their coarse classes, without subclasses."""
    checkpoint = read_checkpoint(digits)
    tensors = dict(checkpoint.gallery_tensors())
    tensors["class_id"] = tensors["class_id"] % 2
    tensors["subclass_id"] = tensors["subclass_id"] * 0 - 1
    tensors["centroids"], tensors["centroid_ids"] = tensors["centroids"][:0], tensors["centroid_ids"][:0]
    subclasses = {"schema": 1, "next_id": 0, "engine": "none", "seed": 0, "classes": []}
    config = {**checkpoint.config, "num_classes": 2, "label_names": ["even", "odd"]}
    config["fgdemo"] = {**config["fgdemo"], "superclass_names": ["even", "odd"]}
    return rewrite(
        tmp_path_factory.mktemp("plot") / "parity", checkpoint, config=config, gallery=tensors, subclasses=subclasses
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("plot") / "tiny")


@pytest.fixture(scope="module")
def hostile(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every name in it tries to leave its place."""
    return write_hostile(tmp_path_factory.mktemp("plot") / "hostile", tiny)


def figure_of(directory: Path, **options: Any) -> Figure:
    return make_figure(read_checkpoint(directory), **options)


def names_of(figure: Figure) -> list[str]:
    return [figure.groups[code].name for code in figure.codes]


# What is drawn ---------------------------------------------------------------------------------------------------


def test_class_colours_are_the_classes_under_their_superclasses(digits: Path) -> None:
    figure = figure_of(digits, colour="class")
    assert names_of(figure) == [figure.class_names[i] for i in figure.gallery.class_id[figure.rows]]
    assert [(group.name, group.parent) for group in figure.groups] == [
        *(("0", "even"), ("1", "odd"), ("2", "even"), ("3", "odd"))
    ]
    assert [group.size for group in figure.groups] == [50, 50, 50, 50]


def test_superclasses_that_are_the_classes_are_no_parents(parity: Path) -> None:
    figure = figure_of(parity, colour="class")
    assert [(group.name, group.parent, group.size) for group in figure.groups] == [("even", "", 100), ("odd", "", 100)]


def test_subclass_colours_are_the_subclasses_and_what_has_none(tiny: Path) -> None:
    figure = figure_of(tiny, colour="subclass")
    shown = [(figure.groups[code].parent, figure.groups[code].name) for code in figure.codes]
    class_ids, ids = figure.gallery.class_id[figure.rows], figure.gallery.subclass_id[figure.rows]
    expected = [(CLASSES[c], f"kind {i}" if i >= 0 else "none") for c, i in zip(class_ids, ids, strict=True)]
    assert shown == expected
    assert [group.parent for group in figure.groups] == ["apple", "apple", "apple", "moss", "moss", "sky"]


def test_split_colours_are_the_splits(digits: Path) -> None:
    figure = figure_of(digits, colour="split")
    assert names_of(figure) == [SPLITS[i] for i in figure.gallery.split[figure.rows]]
    assert {group.name for group in figure.groups} == set(SPLITS)


def test_fine_colours_come_from_the_data_set_by_key(parity: Path) -> None:
    figure = figure_of(parity, colour="fine", max_points=77)
    catalogue = load_catalogue("digits")
    truth = dict(zip(catalogue.keys.tolist(), catalogue.fine.tolist(), strict=True))
    assert names_of(figure) == [str(truth[figure.gallery.keys[row]]) for row in figure.rows]
    assert [(group.name, group.parent) for group in figure.groups] == [
        *(("0", "even"), ("2", "even"), ("1", "odd"), ("3", "odd"))
    ]


def test_groups_look_different_and_count_their_points(digits: Path) -> None:
    for kind in COLOURS:
        figure = figure_of(digits, colour=kind, max_points=150)
        assert len({(colour(group.style), symbol(group.style)) for group in figure.groups}) == len(figure.groups)
        assert [group.size for group in figure.groups] == np.bincount(figure.codes).tolist()


@pytest.mark.parametrize("projection", ["pca", "tsne"])
def test_points_are_those_of_the_projection(digits: Path, projection: str) -> None:
    figure = figure_of(digits, projection=projection, seed=3, class_ids=[1, 3])
    rows = np.flatnonzero(np.isin(figure.gallery.class_id, [1, 3]))
    expected = project2d(figure.gallery.embeddings[rows].astype(np.float32), projection, 3)
    order = np.argsort(figure.rows)
    np.testing.assert_array_equal(figure.rows[order], rows)
    np.testing.assert_array_equal(figure.projection.points[order], expected.points)
    assert {"pca": "PCA", "tsne": "t-SNE"}[projection] in figure.facts


def test_points_are_drawn_in_an_order_that_favours_no_group_and_follows_the_seed(digits: Path) -> None:
    figure, same, other = (figure_of(digits, colour="class", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(figure.rows, same.rows)
    assert (figure.rows != other.rows).any()
    # the mean place of a group's points in the order, of 0 to 199: within 3 standard errors, 25, of the middle
    places = [np.flatnonzero(figure.codes == code).mean() for code in range(4)]
    assert np.abs(np.array(places) - 99.5).max() < 25


def test_too_many_points_are_sampled_by_seed_and_the_figure_says_so(digits: Path) -> None:
    figure, same, other = (figure_of(digits, max_points=60, seed=seed) for seed in (0, 0, 1))
    assert len(np.unique(figure.rows)) == 60
    np.testing.assert_array_equal(figure.rows, same.rows)
    assert set(figure.rows) != set(other.rows)
    assert figure.notes == ("A sample of 60 of 200 pictures, drawn with seed 0.",)
    assert figure.facts == ["digits", "60 pictures", "PCA", "coloured by subclass", "seed 0"]
    assert figure_of(digits, max_points=200).notes == ()


def test_a_projection_on_a_sample_says_so(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "PROJECTED_ROWS", 40)
    (note,) = figure_of(digits, projection="tsne", class_ids=[0]).notes
    assert note.startswith("t-SNE ran on a sample of 40 pictures; each of the others lies at the weighted mean")


def test_a_handful_of_points_is_drawn_by_pca(tiny: Path) -> None:
    figure = figure_of(tiny, projection="tsne", class_ids=[0])
    assert figure.notes == ("Fewer than 10 pictures: PCA in place of t-SNE.",)
    assert figure.facts[1:3] == ["4 pictures", "PCA"]


def test_more_groups_than_looks_are_admitted(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgdemo.plot.figure.STYLES", 5)
    assert figure_of(tiny).notes == ("6 groups share 5 colours and shapes.",)


# The page --------------------------------------------------------------------------------------------------------


class _Elements(HTMLParser):
    """Tags with their attributes, and the text of every script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def decoded(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_the_page_carries_the_points_bit_for_bit(digits: Path) -> None:
    figure = figure_of(digits, colour="class")
    data = island(plot_page(figure))
    np.testing.assert_array_equal(decoded(data["x"], "<f4"), figure.projection.points[:, 0])
    np.testing.assert_array_equal(decoded(data["y"], "<f4"), figure.projection.points[:, 1])
    np.testing.assert_array_equal(decoded(data["code"], "<u4"), figure.codes)
    assert data["keys"] == [figure.gallery.keys[row] for row in figure.rows]
    classes = [data["classes"][code] for code in decoded(data["class"], "<u4")]
    assert classes == [figure.class_names[i] for i in figure.gallery.class_id[figure.rows]]
    subclasses = [data["subclasses"][code] for code in decoded(data["subclass"], "<u4")]
    assert subclasses == [figure.gallery.members[i]["name"] for i in figure.gallery.subclass_id[figure.rows].tolist()]


def test_the_page_carries_the_thumbnails_of_its_points(tiny: Path) -> None:
    figure = figure_of(tiny, class_ids=[1])
    pictures = island(plot_page(figure))["pictures"]
    content, offsets = decoded(pictures["bytes"], "u1").tobytes(), decoded(pictures["offsets"], "<u4")
    assert len(offsets) == len(figure.rows) + 1
    for point, row in enumerate(figure.rows):
        shown = Image.open(io.BytesIO(content[offsets[point] : offsets[point + 1]])).convert("RGB")
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(figure.gallery.thumbnail(int(row))))


def test_thumbnails_above_the_limit_are_left_out_and_the_page_says_so(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figure_of(tiny)
    total = int(figure.gallery.thumbnail_offsets[-1])
    monkeypatch.setattr(page_module, "MAX_PICTURE_BYTES", total)
    assert island(plot_page(figure))["pictures"]
    monkeypatch.setattr(page_module, "MAX_PICTURE_BYTES", total - 1)
    text = plot_page(figure)
    assert island(text)["pictures"] is None
    assert "<li>Without thumbnails: " in text


def test_a_gallery_without_thumbnails_has_a_page(tmp_path: Path, tiny: Path) -> None:
    text = plot_page(figure_of(_bare(tmp_path, tiny)))
    assert island(text)["pictures"] is None
    assert "<li>The checkpoint carries no thumbnails.</li>" in text


def _bare(tmp_path: Path, source: Path) -> Path:
    checkpoint = read_checkpoint(source)
    tensors = dict(checkpoint.gallery_tensors())
    tensors["thumbnails"] = tensors["thumbnails"][:0]
    tensors["thumbnail_offsets"] = tensors["thumbnail_offsets"] * 0
    return rewrite(tmp_path / "bare", checkpoint, gallery=tensors)


def test_the_page_says_what_it_shows(digits: Path) -> None:
    text = plot_page(figure_of(digits, projection="tsne", colour="split", seed=5, max_points=20))
    for fact in ("digits", "20 pictures", "t-SNE", "coloured by split", "seed 5"):
        assert f"<span>{fact}</span>" in text
    assert "<li>A sample of 20 of 200 pictures, drawn with seed 5.</li>" in text


@pytest.mark.parametrize("kind", ["class", "subclass"])
def test_hostile_names_stay_text(hostile: Path, kind: str) -> None:
    figure = figure_of(hostile, colour=kind, name=HOSTILE)
    text = plot_page(figure)
    elements = _Elements(text.encode("utf-8").decode("utf-8"))
    assert [tag for tag, _ in elements.tags].count("script") == 3
    assert "img" not in [tag for tag, _ in elements.tags]
    assert not [name for _, attributes in elements.tags for name in attributes if name.startswith("on")]
    data = island(text)
    assert {name[: len(HOSTILE)] for name in data["classes"]} == {HOSTILE}
    assert "</" not in elements.scripts[0]


def test_scripts_run_by_their_hash_alone_and_reach_no_network(tiny: Path) -> None:
    elements = _Elements(plot_page(figure_of(tiny)))
    policy = next(a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy")
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";") if rule.strip()}
    assert rules["default-src"] == ["'none'"]
    hashes = {base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in elements.scripts[1:]}
    assert set(rules["script-src"]) == {"'unsafe-eval'", *(f"'sha256-{value}'" for value in hashes)}
    assert rules["img-src"] == ["data:", "blob:"]
    assert [a for _, a in elements.tags if "src" in a or a.get("href", "data:,") != "data:,"] == []
    assert elements.scripts[1] == plotly_js().read_text(encoding="utf-8")
    assert "showSendToCloud: false, plotlyServerURL: ''" in elements.scripts[2]


def test_the_scripts_of_pages_never_write_html() -> None:
    for script in STATIC.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert not [word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write") if word in text]
        assert "://" not in text


# The picture -----------------------------------------------------------------------------------------------------


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


# The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def plot(tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., bytes]:
    """Run the command; returns the content of the file."""

    def run(checkpoint: Path, *options: str, kind: str = "html") -> bytes:
        out = tmp_path / f"out.{kind}"
        assert main(["plot", str(checkpoint), "--out", str(out), *options]) == 0, capsys.readouterr().err
        return out.read_bytes()

    return run


def test_every_choice_of_the_library_is_one_of_the_command() -> None:
    actions = {action.dest: action for action in plot_parser()._actions}
    assert tuple(actions["color"].choices) == COLOURS
    assert tuple(actions["projection"].choices) == PROJECTIONS
    assert actions["max_points"].default == MAX_POINTS
    assert f"{SIZE[0]} {SIZE[1]}" in actions["size"].help


@pytest.mark.parametrize(
    "options",
    [
        ("--color", "class"),
        ("--color", "split"),
        ("--color", "fine"),
        ("--projection", "tsne"),
        ("--classes", "1,3"),
        ("--max-points", "30"),
        ("--max-points", "30", "--seed", "1"),
    ],
)
def test_options_change_the_page(digits: Path, plot: Callable[..., bytes], options: tuple[str, ...]) -> None:
    shown, plain = (island(plot(digits, *chosen).decode()) for chosen in (options, options[:-2]))
    assert shown != plain


@pytest.mark.parametrize("options", [("--size", "640", "480"), ("--thumbnails",), ("--color", "split")])
def test_options_change_the_picture(digits: Path, plot: Callable[..., bytes], options: tuple[str, ...]) -> None:
    shown, plain = (Image.open(io.BytesIO(plot(digits, *chosen, kind="png"))) for chosen in (options, ()))
    assert shown.format == "PNG"
    assert plain.size == SIZE
    assert shown.tobytes() != plain.tobytes()
    if "--size" in options:
        assert shown.size == (640, 480)


def test_classes_by_name_number_and_quoted_name(tmp_path: Path, tiny: Path, plot: Callable[..., bytes]) -> None:
    checkpoint = read_checkpoint(tiny)
    config = {**checkpoint.config, "label_names": ["moss, wet", "2", "sky"]}
    named = rewrite(tmp_path / "named", checkpoint, config=config)

    def classes(text: str) -> list[str]:
        return island(plot(named, "--classes", text).decode())["classes"]

    assert classes("2") == ["2"]
    assert classes("1") == ["2"]
    assert classes("sky, 0") == ["moss, wet", "sky"]
    assert classes('"moss, wet"') == ["moss, wet"]


def test_the_name_of_a_checkpoint_is_its_folders(digits: Path, plot: Callable[..., bytes], monkeypatch) -> None:
    monkeypatch.chdir(digits)
    assert b"<span>digits</span>" in plot(Path("."))


def test_notes_are_printed(digits: Path, plot: Callable[..., bytes], capsys: pytest.CaptureFixture) -> None:
    plot(digits, "--max-points", "30")
    assert capsys.readouterr().out.splitlines()[1:] == ["A sample of 30 of 200 pictures, drawn with seed 0."]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--classes", "4"), "there is no class '4' in this checkpoint"),
        (("--classes", "-1"), "there is no class '-1'"),
        (("--classes", ""), "--classes names no class"),
        (("--max-points", "0"), "--max-points must be a whole number 1 or more, not 0"),
        (("--seed", "-1"), "seed must be a whole number"),
        (("--size", "640", "480"), "--size is for PNG"),
        (("--thumbnails",), "--thumbnails is for PNG"),
        (("--data-root", "x"), "--data-root is for --color fine"),
    ],
)
def test_refusals(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture, options: tuple[str, ...], sentence: str
) -> None:
    out = tmp_path / "out.html"
    assert main(["plot", str(digits), "--out", str(out), *options]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert not out.exists()


def test_a_class_is_guessed_and_one_without_pictures_refused(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture
) -> None:
    out = str(tmp_path / "out.html")
    assert main(["plot", str(tiny), "--out", out, "--classes", "aple"]) == 2
    assert "did you mean 'apple'?" in capsys.readouterr().err
    checkpoint = read_checkpoint(tiny)
    tensors = dict(checkpoint.gallery_tensors())
    tensors["class_id"] = tensors["class_id"].clamp(max=1)
    empty = rewrite(tmp_path / "empty", checkpoint, gallery=tensors)
    assert main(["plot", str(empty), "--out", out, "--classes", "sky"]) == 2
    assert "Class 'sky' has no picture in the gallery" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "sentence"), [("x.pdf", "neither .html nor .png"), ("no/such/x.html", "cannot be written")]
)
def test_bad_places_to_write(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture, out: str, sentence: str
) -> None:
    assert main(["plot", str(tiny), "--out", str(tmp_path / out)]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("size", [("319", "400"), ("400", "8001"), ("400", "0")])
def test_sizes_out_of_range_are_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture, size: tuple[str, str]
) -> None:
    assert main(["plot", str(tiny), "--out", str(tmp_path / "x.png"), "--size", *size]) == 2
    assert "a side of --size must be a whole number from 320 to 8000" in capsys.readouterr().err


def test_thumbnails_need_pictures_and_subclasses(
    tiny: Path, parity: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for checkpoint in (_bare(tmp_path, tiny), parity):
        assert main(["plot", str(checkpoint), "--out", str(tmp_path / "x.png"), "--thumbnails"]) == 2
        assert capsys.readouterr().err.startswith("This gallery holds no pictures of subclasses")


def test_pages_need_plotly_and_pictures_do_not(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgdemo.html_page.find_spec", lambda name: None)
    assert main(["plot", str(tiny), "--out", str(tmp_path / "x.html")]) == 2
    assert "pip install plotly" in capsys.readouterr().err
    assert main(["plot", str(tiny), "--out", str(tmp_path / "x.png"), "--size", "400", "320"]) == 0


# Fine labels ------------------------------------------------------------------------------------------------------


def _trained_on(tmp_path: Path, source: Path, training: dict[str, Any], keys: list[str] | None = None) -> Path:
    checkpoint = read_checkpoint(source)
    config = {**checkpoint.config, "fgdemo": {**checkpoint.config["fgdemo"], "training": training}}
    gallery = Gallery.from_checkpoint(checkpoint)
    if keys:
        gallery = replace(gallery, keys=keys)
    return rewrite(tmp_path / "other", checkpoint, config=config, gallery=gallery.to_tensors())


def _photos(root: Path, *, fine: bool) -> Path:
    for row in range(12):
        folder = root / "photos" / CLASSES[row % 3] / (f"kind {row % 2}" if fine else "")
        folder.mkdir(parents=True, exist_ok=True)
        picture(row).save(folder / f"{row:02d}.png")
    return root / "photos"


def test_fine_labels_of_a_folder_need_its_root(
    tmp_path: Path, tiny: Path, plot: Callable[..., bytes], capsys: pytest.CaptureFixture
) -> None:
    root = _photos(tmp_path, fine=True)
    keys = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    checkpoint = _trained_on(tmp_path, tiny, {"dataset": "imagefolder"}, keys)
    groups = island(plot(checkpoint, "--color", "fine", "--data-root", str(root)).decode())["groups"]
    names = sorted(f"{group['parent']}/{group['name']}" for group in groups)
    assert names == sorted(load_catalogue("imagefolder", root).class_names("fine"))
    assert {group["name"] for group in groups} == {"kind 0", "kind 1"}
    assert main(["plot", str(checkpoint), "--out", str(tmp_path / "x.html"), "--color", "fine"]) == 2
    assert "--data-root" in capsys.readouterr().err


def test_fine_labels_that_cannot_be_had_are_one_sentence(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture
) -> None:
    flat = str(_photos(tmp_path, fine=False))
    cases = [
        ({"dataset": "imagefolder"}, ["--data-root", flat], "has one level of labels"),
        ({"dataset": "grocery_store"}, [], "--data-root"),
        ({"dataset": "drawn"}, [], "known here (drawn)"),
        ({"dataset": "digits"}, [], "lacks 12 of the 12 pictures of the gallery, such as 'drawn/00.png'"),
        ({}, [], "known here (none is named)"),
    ]
    for number, (training, options, sentence) in enumerate(cases):
        checkpoint = _trained_on(tmp_path / str(number), tiny, training)
        command = ["plot", str(checkpoint), "--out", str(tmp_path / "x.html"), "--color", "fine", *options]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
