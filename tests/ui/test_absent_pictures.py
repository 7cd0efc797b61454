"""What every tab says and shows of a checkpoint without pictures: with no copy, with one, and fetching one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import gradio as gr
import pytest
import torchvision.datasets
from support.absent_pictures import FLOWERS, GROCERIES, stand_in, with_archive, write_bare, write_pictures
from tiny_checkpoint import picture, write_tiny

import app as entry
from fgdemo import fetch
from fgdemo.ui.build import build
from fgdemo.ui.pictures import notice
from fgdemo.ui.session import App, data_folder

SCATTER, POINT, ROWS, HISTORY = 0, 2, 4, 7
OPTIONS = ([], "kmeans", False, 1, 0, 0, 1, "pca")


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundled")
    write_bare(folder / "flowers")
    write_bare(folder / "groceries", "grocery_store", GROCERIES)
    write_tiny(folder / "tiny")
    return folder


@pytest.fixture
def make(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., App]:
    monkeypatch.setattr(fetch, "_EVERY_S", 0.01)
    places = {"saved": tmp_path / "saved", "data": tmp_path / "data", "device": "cpu"}
    return lambda **options: App([bundled], **places, **options)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    picture(50).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def callbacks(app: App) -> Callable:
    """`call("recluster", "start", ...)` calls the callback of that name in that module."""
    fns = [fn.fn for fn in build(app).fns.values() if fn.fn]
    own = {(fn.__module__.rpartition(".")[2], fn.__name__): fn for fn in fns}
    return lambda module, name, *arguments: own[module, name](*arguments)


def start(call: Callable, name: str) -> list:
    return call("recluster", "start", name, "pca", [], gr.EventData(None, {"name": name}))


def press_point(call: Callable, view: list) -> str:
    return call("recluster", "show_point", gr.EventData(None, {"result": view[SCATTER]["result"], "point": 0}))


def everywhere(call: Callable, name: str, photo: str) -> dict[str, str]:
    """Each place where pictures of the gallery would stand."""
    view = start(call, name)
    return {
        "classify": call("classify", "show", photo, name),
        "prototypes": call("prototypes", "show", name, "0", None),
        "recluster": view[ROWS],
        "point": press_point(call, view),
    }


def text(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html)


def test_each_place_says_it_once_and_shows_no_empty_frames(make: Callable, photo: str):
    for place, html in everywhere(callbacks(make()), "flowers", photo).items():
        assert html.count("The pictures are not part of this checkpoint.") == 1, place
        assert "<img" not in html, place
        # The nearest pictures keep their captions; style.css hides their frames.
        assert html.count("fg-blank") == (8 if place == "classify" else 0), place


def test_with_a_copy_the_pictures_are_there(make: Callable, photo: str, tmp_path: Path):
    roots = [tmp_path / "nothing", write_pictures(tmp_path / "both")]
    write_pictures(tmp_path / "both", GROCERIES)
    call = callbacks(make(data_roots=roots))
    for name in ("flowers", "groceries"):
        for place, html in everywhere(call, name, photo).items():
            assert html.count("data:image/webp;base64,") > 1, place
            assert "fg-absent" not in html, place
            assert "fg-blank" not in html, place
    answer = call("prototypes", "prototypes", "apple", "flowers", 1)
    assert answer["subclasses"][0]["prototypes"][0]["thumbnail"].startswith("data:image/webp")


def test_the_hover_card_has_the_picture_of_the_copy(make: Callable, tmp_path: Path):
    app = make(data_roots=[write_pictures(tmp_path / "root")])
    page = build(app)
    (scatter,) = [block for block in page.blocks.values() if type(block).__name__ == "Scatter"]
    (describe,) = scatter.server_fns
    view = start(callbacks(app), "flowers")
    card = describe({"result": view[SCATTER]["result"], "point": 0})
    assert card["picture"].startswith("data:image/webp;base64,")


def test_a_checkpoint_with_pictures_says_nothing(make: Callable, photo: str):
    app = make(fetch=True)
    assert notice(app, "tiny") == ""
    assert all("fg-absent" not in html for html in everywhere(callbacks(app), "tiny", photo).values())


def test_the_sentence_names_the_reason_and_every_way_there_is(make: Callable, tmp_path: Path):
    here = notice(make(fetch=True), "flowers")
    assert "The rights to them lie with &lt;their&gt; owners." in here
    assert text(here).endswith(
        "start the app with --data-root DIR, the folder that holds flowers-102/, or have torchvision download them."
        "Fetch 345 MB"
    )
    public = notice(make(), "flowers")
    assert "<button" not in public
    assert "after torchvision.datasets.Flowers102(DIR, download=True)." in text(public)
    groceries = notice(make(fetch=True), "groceries")
    assert "<button" not in groceries
    assert text(groceries).endswith("--data-root DIR, the folder that holds dataset/.")
    wrong = notice(make(data_roots=[tmp_path]), "flowers")
    assert f"(none of those given holds {FLOWERS}/image_00.png)" in text(wrong)


def test_what_a_checkpoint_says_of_its_data_is_not_trusted(make: Callable):
    app = make(fetch=True)
    training = app.classifier("flowers").config["fgdemo"]["training"]
    training.update(dataset=["flowers102"], licence={"no": "text"})
    shown = notice(app, "flowers")
    assert "<button" not in shown
    assert text(shown).startswith("The pictures are not part of this checkpoint. To see them, start")
    *_, last = callbacks(app)("pictures", "fetch", "flowers")
    assert (last["arrived"], last["busy"]) == (False, False)
    assert "torchvision does not download" in last["text"]


def test_after_fetching_the_pictures_are_there_without_a_restart(make: Callable, photo: str, monkeypatch):
    calls: list[Path] = []
    monkeypatch.setattr(torchvision.datasets, "Flowers102", stand_in(with_archive, calls=calls))
    app = make(fetch=True)
    call = callbacks(app)
    first = start(call, "flowers")
    second = call("recluster", "again", "flowers", *OPTIONS, first[HISTORY])
    assert "fg-absent" in second[ROWS]
    *during, last = call("pictures", "fetch", "flowers")
    assert during
    assert all(state["busy"] and state["text"] for state in during)
    assert last == {"text": "", "busy": False, "arrived": True}
    assert len(calls) == 1
    redrawn = call("recluster", "redraw", "flowers", second[HISTORY])
    assert "<img" in redrawn[ROWS]
    assert redrawn[SCATTER]["code"] == second[SCATTER]["code"]
    # The step before can still be gone back to.
    assert len(redrawn[HISTORY]) == 2
    assert all("<img" in html for html in everywhere(call, "flowers", photo).values())
    # They are there for the next start too, whether or not that one may fetch.
    assert "<img" in everywhere(callbacks(make()), "flowers", photo)["classify"]


def test_without_a_view_there_is_nothing_to_redraw(make: Callable):
    call = callbacks(make())
    for steps in ([], ["gone"]):
        assert all(output == gr.skip() for output in call("recluster", "redraw", "flowers", steps))


def test_off_line_the_reason_stands_beside_the_button(make: Callable, monkeypatch: pytest.MonkeyPatch):
    def fail(root: Path) -> None:
        raise URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(torchvision.datasets, "Flowers102", stand_in(fail, calls=[]))
    *_, last = callbacks(make(fetch=True))("pictures", "fetch", "flowers")
    assert (last["busy"], last["arrived"]) == (False, False)
    assert last["text"].startswith("flowers102 could not be fetched: nothing came from its server")


def test_a_copy_that_is_another_one_is_told(make: Callable, monkeypatch: pytest.MonkeyPatch):
    def other(root: Path) -> None:
        (root / "flowers-103").mkdir(parents=True)

    monkeypatch.setattr(torchvision.datasets, "Flowers102", stand_in(other, calls=[]))
    *_, last = callbacks(make(fetch=True))("pictures", "fetch", "flowers")
    assert last["arrived"] is False
    assert f"flowers102 has no {FLOWERS}/image_00.png: move it away" in last["text"]


def test_a_public_server_fetches_nothing_whatever_it_is_sent(make: Callable, monkeypatch: pytest.MonkeyPatch):
    calls: list[Path] = []
    monkeypatch.setattr(torchvision.datasets, "Flowers102", stand_in(with_archive, calls=calls))
    states = list(callbacks(make())("pictures", "fetch", "flowers"))
    assert [state["arrived"] for state in states] == [False]
    assert "This server fetches no data sets" in states[0]["text"]
    assert calls == []


@pytest.mark.parametrize(
    ("words", "here"),
    [
        ([], True),
        (["--host", "127.0.0.5"], True),
        (["--host", "::1"], True),
        (["--host", "localhost"], True),
        (["--host", "0.0.0.0"], False),
        (["--host", "::"], False),
        (["--host", "192.168.0.4"], False),
        (["--host", "example.org"], False),
        (["--share"], False),
    ],
)
def test_only_a_server_for_this_machine_fetches(monkeypatch: pytest.MonkeyPatch, words: list[str], here: bool):
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    assert entry._only_here(entry.parse(words)) is here


def test_several_roots_are_given_and_have_to_exist(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = ["--data-root", str(tmp_path), "--data-root", str(tmp_path / "no-such-folder")]
    assert entry.parse(words).data_root == [tmp_path, tmp_path / "no-such-folder"]
    assert entry.parse([]).data_root == []
    assert entry.main(words) == 2
    assert "no-such-folder does not exist; give --data-root an existing folder" in capsys.readouterr().err


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FGDEMO_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "data"
    monkeypatch.delenv("FGDEMO_HOME")
    assert data_folder() == Path.home() / ".local" / "share" / "fgdemo" / "data"
