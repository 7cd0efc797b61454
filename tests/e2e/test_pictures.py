"""Checkpoints without pictures in a browser: what is said, the button that fetches them, and a copy that is given."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.absent_pictures import GROCERIES, write_bare, write_pictures
from support.commands import environment

from .conftest import ROOT, Server, _wait_for

# The app with a torchvision that has no network at the first try, and brings a miniature at the second.
SERVE = """
import sys, urllib.error
sys.path.insert(0, "tests")
import torchvision.datasets
from support.absent_pictures import stand_in, with_archive
def fail(root):
    raise urllib.error.URLError(OSError(-2, "Name or service not known"))
torchvision.datasets.Flowers102 = stand_in(fail, with_archive, calls=[])
import app
sys.exit(app.main(sys.argv[1:]))
"""
SENTENCE = "The pictures are not part of this checkpoint."
PLACES = {"Prototypes": "#prototypes-rows", "Re-cluster": "#rc-prototypes"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Flowers that nobody has yet, and groceries of which a copy lies in --data-root."""
    base = tmp_path_factory.mktemp("pictures")
    write_bare(base / "bundled" / "a-flowers")
    write_bare(base / "bundled" / "b-groceries", "grocery_store", GROCERIES)
    roots = [base / "empty", write_pictures(base / "copy", GROCERIES)]
    roots[0].mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--port", str(port), "--checkpoints", str(base / "bundled"), "--device", "cpu"]
    words += [word for root in roots for word in ("--data-root", str(root))]
    log = base / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, *words],
            cwd=ROOT,
            env={**environment(), "FGDEMO_HOME": str(base / "home"), "GRADIO_TEMP_DIR": str(base / "cache")},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}/"
        _wait_for(url, process, log)
        yield Server(url, base / "bundled", base / "home" / "checkpoints")
        assert f"{ROOT / 'fgdemo'}" not in log.read_text()
    finally:
        process.terminate()
        process.wait(30)


def classify(page, photo: Path) -> None:
    page.locator("#classify-picture input[type=file]").first.set_input_files(photo)
    page.wait_for_selector("#classify-result .fg-result")


def open_place(page, tab: str) -> str:
    """The selector of the place, once there is something in it."""
    page.get_by_role("tab", name=tab).click()
    if tab == "Re-cluster":
        page.locator("#rc-scatter .frame").scroll_into_view_if_needed()
    page.wait_for_selector(f"{PLACES[tab]} article, {PLACES[tab]} .rc-row")
    return PLACES[tab]


def test_a_person_reads_why_and_fetches_them(open_page, server: Server, photo: Path):
    page = open_page("a-flowers")
    classify(page, photo)
    places = ["#classify-result", *(open_place(page, tab) for tab in PLACES)]
    for place in places:
        assert page.locator(place).text_content().count(SENTENCE) == 1
        assert page.locator(f"{place} img").count() == 0
    page.get_by_role("tab", name="Prototypes").click()
    button, status = (page.locator(f"#prototypes-rows .fg-absent {part}") for part in ("button", "[role=status]"))
    button.click()
    status.get_by_text("flowers102 could not be fetched: nothing came from its server (Name or service not").wait_for()
    button.click()
    # No restart, no reload: each place fills by itself, and nothing is left to fetch.
    for place in places:
        page.wait_for_selector(f"{place} img", state="attached")
    assert page.locator(".fg-absent").count() == 0
    fetched = server.saved.parent / "data" / "flowers102" / "flowers-102"
    assert sorted(file.name for file in fetched.iterdir()) == ["jpg"]


def test_with_a_copy_the_pictures_are_there(open_page, photo: Path):
    page = open_page("b-groceries", size="phone", scheme="dark")
    classify(page, photo)
    nearest = page.get_by_role("list", name="Nearest gallery pictures")
    assert nearest.locator("img[alt*='dataset/train/Fruit/']").count() == 8
    for tab in PLACES:
        place = open_place(page, tab)
        page.wait_for_selector(f"{place} img")
        assert page.evaluate("(place) => document.querySelector(`${place} img`).naturalWidth", place) == 128
    assert page.locator(".fg-absent, .fg-blank").count() == 0
