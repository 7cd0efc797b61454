"""The app as a process of its own over small checkpoints, and a browser to use it with."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.commands import environment
from tiny_checkpoint import make_voting_network, picture, write_divided, write_tiny

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]
# The machine may be busy: waiting long costs nothing where things work.
PATIENCE_S = 60
SIZES = {"desktop": (1440, 900), "tablet": (1024, 768), "phone": (390, 844)}


@dataclass(frozen=True)
class Server:
    """The running app: where it is, the bundled checkpoints it was given, and the folder of a person's versions."""

    url: str
    checkpoints: Path
    saved: Path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`python app.py` over a ViT, a CNN with examples, and one each that finds all novel, votes, knows subclasses."""
    base = tmp_path_factory.mktemp("app")
    bundled = base / "bundled"
    write_tiny(bundled / "a-vit")
    write_tiny(bundled / "b-cnn", "test_resnet", training={"dataset": "digits"})
    write_tiny(bundled / "c-strict", novelty={"threshold": 1e-9, "quantile": 0.95, "measured": []})
    write_tiny(bundled / "d-voting", network=make_voting_network())
    write_divided(bundled / "e-divided")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (base / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port), "--checkpoints", str(bundled), "--device", "cpu"],
        cwd=ROOT,
        env={**environment(), "FGDEMO_HOME": str(base / "home"), "GRADIO_TEMP_DIR": str(base / "cache")},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        url = f"http://127.0.0.1:{port}/"
        _wait_for(url, process, Path(log.name))
        yield Server(url, bundled, base / "home" / "checkpoints")
        # Gradio logs the traceback of a request that it refuses itself; none may pass through our code.
        assert f"{ROOT / 'fgdemo'}" not in Path(log.name).read_text()
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Debian's Chromium without a window."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium to test the app in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def open_page(server: Server, browser) -> Iterator[Callable]:
    """`open_page(checkpoint=None, size="desktop", scheme="light")` -> the loaded page.

    Afterwards no page may have logged an error or asked another server for anything.
    """
    faults: list[str] = []
    pages = []

    def open_one(checkpoint: str | None = None, size: str = "desktop", scheme: str = "light"):
        width, height = SIZES[size]
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        pages.append(page)
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(f"page: {error}"))
        page.on("request", lambda request: _is_ours(request.url, server.url) or faults.append(f"asked {request.url}"))
        page.goto(server.url)
        page.wait_for_selector("#facts span:nth-child(3)")
        if checkpoint is not None:
            choose(page, "#checkpoint", checkpoint)
            page.wait_for_function(
                "(name) => document.querySelector('#checkpoint input').value === name", arg=checkpoint
            )
        return page

    yield open_one
    for page in pages:
        page.close()
    assert faults == []


def choose(page, dropdown: str, option: str) -> None:
    """Pick an option of one of the page's dropdowns."""
    page.locator(f"{dropdown} input").click()
    page.get_by_role("option", name=option, exact=True).and_(page.locator("li")).click()


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to upload, not square."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    picture(50, (120, 80)).save(path)
    return path


def _is_ours(address: str, url: str) -> bool:
    return address.startswith((url, "data:", "blob:"))


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 2 * PATIENCE_S
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.2)
    pytest.fail(f"The app did not start:\n{log.read_text()[-2000:]}")
