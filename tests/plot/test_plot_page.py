"""The gallery in the plane as a page: its points, thumbnails, words, and what its scripts may do."""

from __future__ import annotations

import base64
import hashlib
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pages import HOSTILE, island
from support.plots import figure_of

from fgdemo.html_page import STATIC, plotly_js
from fgdemo.plot import page as page_module
from fgdemo.plot.page import plot_page


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


def test_a_gallery_without_thumbnails_has_a_page(bare: Path) -> None:
    text = plot_page(figure_of(bare))
    assert island(text)["pictures"] is None
    assert "<li>The checkpoint carries no thumbnails.</li>" in text


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
