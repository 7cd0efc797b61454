"""The sheet of examples: which pictures, what is drawn around them, where it is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont
from support.subjects import digits_subject

from fgdemo.errors import UserError
from train.__main__ import main
from train.evaluation import Subject
from train.evaluation.examples import ExamplesOptions, Tile, choose, draw_sheet, font_for, lines, measure, shortened

RIGHT, WRONG = (26, 127, 55), (207, 34, 46)
HEADING = ("Title", "Second line", "Third line")


@pytest.fixture
def subject() -> Subject:
    """Digits of which the first 20 of 270 are taken for the next one."""
    subject = digits_subject(logits=torch.zeros(270, 10))
    output = subject.outputs("test")
    predicted = output.labels.clone()
    predicted[:20] = (predicted[:20] + 1) % 10
    output.logits = 4.0 * torch.nn.functional.one_hot(predicted, 10)
    return subject


def frames(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    """Upper left corners of frames: 4 x 12 pixels of a colour, with white above and 20 pixels of it to the left."""
    pixels = np.asarray(sheet)
    blocks = np.lib.stride_tricks.sliding_window_view((pixels == colour).all(2), (4, 12)).all((2, 3))
    white = (pixels == 255).all(2)
    return sum(bool(white[y - 1, x : x + 12].all() and white[y, x - 20 : x].all()) for y, x in np.argwhere(blocks))


def tile(predicted: str = "a", actual: str = "a", picture: Image.Image | None = None, probability: float = 0.5) -> Tile:
    return Tile(picture or Image.new("RGB", (40, 40), "#123456"), predicted, actual, probability)


def test_sheet_of_a_split(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.png"
    result = measure(subject, ExamplesOptions(str(path), 24, 0.25))
    assert result == {"file": "sheet.png", "pictures": 24, "errors": 6}
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert (frames(sheet, RIGHT), frames(sheet, WRONG)) == (18, 6)
    assert list(path.parent.iterdir()) == [path]
    assert lines(result) == ["  examples     24 pictures, 6 of them errors, in sheet.png"]


def test_every_option_changes_the_sheet(subject: Subject, tmp_path: Path) -> None:
    def sheet(*options: object) -> tuple[dict, bytes]:
        path = tmp_path / "sheet.png"
        return measure(subject, ExamplesOptions(str(path), *options)), path.read_bytes()

    plain = sheet(12, 0.5, 0)
    assert plain == sheet(12, 0.5, 0)
    assert (plain[0]["pictures"], plain[0]["errors"]) == (12, 6)
    assert sheet(14, 0.5, 0)[0]["pictures"] == 14
    assert sheet(12, 0.0, 0)[0]["errors"] == 0
    assert sheet(12, 0.5, 1)[1] != plain[1]


def test_names_and_probability_are_on_the_sheet() -> None:
    def drawn(*tiles: Tile, heading: tuple[str, str, str] = HEADING) -> bytes:
        return draw_sheet(list(tiles), heading).tobytes()

    plain = drawn(tile("moth", "wren"))
    for changed in (
        drawn(tile("moss", "wren")),
        drawn(tile("moth", "bream")),
        drawn(tile("moth", "wren", probability=0.6)),
    ):
        assert changed != plain
    for i in range(3):
        assert drawn(tile("moth", "wren"), heading=(*HEADING[:i], "else", *HEADING[i + 1 :])) != plain


def test_right_and_wrong_differ_without_colour() -> None:
    """In grey: the frame of the wrong one has gaps, that of the right one none, and the signs differ."""
    right, wrong = (
        np.asarray(draw_sheet([tile("a", actual)], HEADING).convert("L")).astype(int) for actual in ("a", "b")
    )
    top = int(np.flatnonzero((np.asarray(draw_sheet([tile()], HEADING)) == RIGHT).all(2).sum(1) > 100)[0])
    for picture, gaps in ((right, False), (wrong, True)):
        edge = picture[top, 32 : 32 + 176]
        assert (edge == 255).any() == gaps
        assert (edge < 128).any()
    below = slice(top + 176, top + 200), slice(32, 48)
    assert not np.array_equal(right[below] < 200, wrong[below] < 200)


@pytest.mark.parametrize(
    ("wrong", "count", "share", "expected"),
    [
        (20, 12, 0.5, (6, 6)),
        (4, 12, 0.5, (4, 8)),
        (18, 12, 0.0, (0, 12)),
        (20, 12, 1.0, (12, 0)),
        (28, 12, 0.1, (10, 2)),
        (0, 40, 0.5, (0, 30)),
        (30, 40, 0.5, (30, 0)),
    ],
)
def test_errors_and_the_rest(wrong: int, count: int, share: float, expected: tuple[int, int]) -> None:
    correct = np.arange(30) >= wrong
    chosen = choose(correct, count, share, 0)
    assert len(set(chosen.tolist())) == len(chosen)
    assert ((~correct[chosen]).sum(), correct[chosen].sum()) == expected
    assert (np.diff(correct[chosen].astype(int)) >= 0).all()


def test_the_choice_is_random_but_seeded() -> None:
    correct = np.arange(200) % 2 == 0
    assert choose(correct, 20, 0.5, 3).tolist() == choose(correct, 20, 0.5, 3).tolist()
    assert choose(correct, 20, 0.5, 3).tolist() != choose(correct, 20, 0.5, 4).tolist()


def test_pictures_are_cropped_to_what_the_network_sees(tmp_path: Path) -> None:
    """A picture of 80 x 64 with a border of 8 and more, of which the network sees about 40 x 40, or all."""
    bordered = Image.new("RGB", (80, 64), "#ff00ff")
    bordered.paste("#00c8c8", (16, 8, 64, 56))
    for crop_pct, seen in ((0.625, False), (2.0, True)):
        subject = digits_subject(logits=torch.eye(10)[torch.arange(270) % 10], crop_pct=crop_pct)
        subject.catalogue.reader = lambda index: bordered
        measure(subject, ExamplesOptions(str(tmp_path / "sheet.png"), 4))
        pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
        assert (pixels == (0, 200, 200)).all(2).any()
        assert (pixels == (255, 0, 255)).all(2).any() == seen


def test_shapes_are_kept() -> None:
    sheet = np.asarray(draw_sheet([tile(picture=Image.new("RGB", (60, 30), "#00c8c8"))], HEADING))
    rows, columns = np.nonzero((sheet == (0, 200, 200)).all(2))
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (160, 80)


def test_a_grid_of_tiles() -> None:
    sizes = [draw_sheet([tile()] * n, HEADING).size for n in (1, 4, 5)]
    assert sizes[0] == sizes[1]
    assert sizes[2][0] == sizes[0][0]
    assert sizes[2][1] > sizes[0][1]
    assert frames(draw_sheet([tile()] * 5, HEADING), RIGHT) == 5


def test_long_names_keep_both_ends() -> None:
    font = ImageFont.load_default(14)
    assert shortened("short", font, 100) == "short"
    long = shortened("Arla natural yoghurt with mild bacteria, low fat", font, 120)
    assert font.getlength(long) <= 120
    assert long.startswith("Arla na")
    assert long.endswith("ow fat")
    assert shortened("two\nlines\tand  more", font, 500) == "two lines and more"
    assert shortened("wide", font, 3) == "…"
    draw_sheet([tile("a\nb" * 40, "")], HEADING)


def test_other_scripts_have_letters() -> None:
    """No two of them drawn as the same box, where the system has a font at all."""
    font = font_for("Жук", 14)
    if font.getname() == ImageFont.load_default(14).getname():
        pytest.skip("no font beside Pillow's own")
    assert bytes(font.getmask("Ж")) != bytes(font.getmask("к"))
    assert font_for("beetle", 14).getname() == ImageFont.load_default(14).getname()


def test_only_the_main_process_writes(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(subject.accelerator), "is_main_process", False)
    result = measure(subject, ExamplesOptions(str(tmp_path / "sheet.png"), 12))
    assert result["pictures"] == 12
    assert not list(tmp_path.iterdir())


def test_a_failed_sheet_leaves_the_old_one(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sheet.png"
    path.write_bytes(b"old")

    def fail(image: Image.Image, file: Path, *_: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(UserError, match="No space left"):
        measure(subject, ExamplesOptions(str(path), 4))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_is_none(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "sheet.png", tmp_path / "folder.png"):
        with pytest.raises(UserError, match="choose another file"):
            measure(subject, ExamplesOptions(str(path), 4))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"examples": "sheet.jpg"}, "sheet.jpg"),
        ({"examples_count": 0}, "--examples-count"),
        ({"examples_count": 1001}, "--examples-count"),
        ({"examples_errors": 1.5}, "--examples-errors"),
    ],
)
def test_impossible_options(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ExamplesOptions(**options)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The three rulers of this kind in one call, on a checkpoint that comes with the repository."""
    sheet, root = tmp_path / "sheet.png", Path(__file__).parents[3]
    argv = ["evaluate", str(root / "checkpoints" / "digits-classify"), "--out", str(tmp_path), "--device", "cpu"]
    own = ["--examples", str(sheet), "--retrieval", "--faithfulness", "--faithful-pictures", "3", "--threads", "1"]
    assert main([*argv, *own, "--workers", "0"]) == 0
    result = json.loads((tmp_path / "test.json").read_text())
    assert result["examples"]["errors"] == result["metrics"]["errors"]
    assert result["retrieval"]["fine"]["n"] == 270
    assert "retrieval/fine/recall@1" in result["outcomes"]
    assert "outcomes" not in result["retrieval"]
    assert result["faithfulness"]["n"] == 3
    assert frames(Image.open(sheet), WRONG) == result["metrics"]["errors"]
    printed = capsys.readouterr().out
    for word in ("retrieval    coarse", "faithfulness of class activation, 3 pictures", "in sheet.png"):
        assert word in printed
    assert main([*argv, "--examples", "sheet.jpg"]) == 2
    assert "sheet.jpg" in capsys.readouterr().err
