"""The pages of `fgdemo plot` and `train report`, opened from the disk."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.pages import HOSTILE, island, write_hostile, write_run
from tiny_checkpoint import write_tiny

from fgdemo.__main__ import main as fgdemo_main
from train.__main__ import main as train_main

PHONE = (390, 844)


@pytest.fixture
def open_file(browser) -> Iterator[Callable]:
    """`open_file(path)` -> the loaded page, on a phone in the dark.

    Afterwards no page may have logged an error or asked anybody for anything.
    """
    faults: list[str] = []
    pages = []

    def open_one(path: Path):
        page = browser.new_page(viewport={"width": PHONE[0], "height": PHONE[1]}, color_scheme="dark")
        pages.append(page)
        own = path.as_uri()
        page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(f"page: {error}"))
        page.on("request", lambda r: r.url.startswith((own, "data:", "blob:")) or faults.append(f"asked {r.url}"))
        page.goto(own)
        return page

    yield open_one
    for page in pages:
        page.close()
    assert faults == []


def test_pages_work_without_a_network_whatever_names_hold(tmp_path: Path, open_file: Callable) -> None:
    checkpoint = write_hostile(tmp_path / "hostile", write_tiny(tmp_path / "tiny"))
    assert fgdemo_main(["plot", str(checkpoint), "--out", str(tmp_path / "plot.html")]) == 0
    page = open_file(tmp_path / "plot.html")
    page.wait_for_selector('.frame[data-points="12"]')
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 19, 18)"
    _hover(page)
    page.wait_for_selector(".card.on")
    page.wait_for_function("document.querySelector('.card img').naturalWidth > 0")
    assert HOSTILE in page.locator(".card").text_content()
    assert "drawn/" in page.locator(".card").text_content()
    button = page.locator(".legend [data-group='1']")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    strong = page.evaluate("Array.from(document.querySelector('.plot').data[0].marker.opacity, (o) => o > 0.5)")
    code = np.frombuffer(base64.b64decode(island((tmp_path / "plot.html").read_text(encoding="utf-8"))["code"]), "<u4")
    assert strong == (code == 1).tolist()
    page.locator(".legend .all").click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate("document.querySelector('.plot').data[0].marker.opacity") == 0.9
    _check_calm(page)

    for seed in (0, 1):
        write_run(tmp_path / "runs" / str(seed), seed=seed, command=HOSTILE, auto_augment=HOSTILE)
    write_run(tmp_path / "runs" / "other", epochs=9, auto_augment=f"{HOSTILE}2")
    report = ["report", str(tmp_path / "runs"), "--title", HOSTILE, "--out", str(tmp_path / "report.html")]
    assert train_main(report) == 0
    page = open_file(tmp_path / "report.html")
    page.wait_for_selector('.charts[data-drawn="epoch"]')
    lines = "document.querySelector('.charts .plot').data.map((trace) => Array.from(trace.x))"
    assert page.evaluate(lines) == [[1, 2], [1, 2], [1, 2], [1, 2]]
    _hover(page)
    page.wait_for_selector(".hoverlayer .hovertext")
    text = page.locator(".hoverlayer .hovertext").text_content()
    assert f"auto_augment={HOSTILE}" in text
    assert text.endswith("epoch 10.5")
    page.get_by_role("button", name="by step").click()
    page.wait_for_selector('.charts[data-drawn="step"]')
    assert page.evaluate(lines) == [[2, 4]] * 4
    page.locator(".controls button").last.click()
    page.wait_for_function("document.querySelector('.charts .plot').data.length < 4")
    _check_calm(page)


def _hover(page) -> None:
    """Move onto the first point of the first chart."""
    x, y = page.evaluate(
        """() => {
          const plot = document.querySelector('.plot');
          plot.scrollIntoView({ block: 'center' });
          const { _fullLayout: { xaxis, yaxis }, data: [trace] } = plot;
          const box = plot.getBoundingClientRect();
          return [box.left + xaxis._offset + xaxis.d2p(trace.x[0]), box.top + yaxis._offset + yaxis.d2p(trace.y[0])];
        }"""
    )
    page.mouse.move(x + 40, y)
    page.mouse.move(x + 1, y, steps=4)


def _check_calm(page) -> None:
    """No name has become a script or an element, and nothing reaches beyond the screen."""
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src='x']").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
