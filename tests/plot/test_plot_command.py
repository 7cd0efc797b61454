"""`python -m fgdemo plot`: its options, its refusals, and fine labels of a data set."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.pages import island, rewrite
from tiny_checkpoint import CLASSES, picture

from fgdemo.__main__ import main
from fgdemo.checkpoint import read_checkpoint
from fgdemo.clustering import PROJECTIONS
from fgdemo.data import load_catalogue
from fgdemo.gallery import Gallery
from fgdemo.plot.command import plot_parser
from fgdemo.plot.figure import COLOURS, MAX_POINTS
from fgdemo.plot.picture import SIZE


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
    bare: Path, parity: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for checkpoint in (bare, parity):
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
