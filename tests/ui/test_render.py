from __future__ import annotations

import copy
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from tiny_checkpoint import picture, write_tiny

from fgdemo.explain.draw import color_table
from fgdemo.predict import Classifier, load
from fgdemo.prediction import ClassScore
from fgdemo.ui import render

HOSTILE = """<script>x</script>"'`${1+1}{{this}}&amp;"""


class Read(HTMLParser):
    """What a browser makes of a text: elements with their attributes, the texts, and whether tags are balanced."""

    VOID = ("img", "input", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load(write_tiny(tmp_path_factory.mktemp("render") / "tiny"), device="cpu")


def facts(**changes: Any) -> dict[str, Any]:
    return {"id": 7, "name": "spotted", "size": 3, "spread": 0.25, "silhouette": None, **changes}


def test_escaped_text_reads_as_it_was_and_means_nothing_to_templates():
    escaped = render.escape(HOSTILE)
    assert not set(escaped) & set("<>\"'`${}")
    assert "".join(Read(f"<p>{escaped}</p>").texts) == HOSTILE
    assert Read(f'<p title="{escaped}"></p>').all("p") == [{"title": HOSTILE}]


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0%"), (1e-9, "<1%"), (0.01, "1%"), (0.555, "56%"), (0.995, ">99%"), (1, "100%")]
)
def test_percent(share: float, text: str):
    assert render.percent(share) == text


@pytest.mark.parametrize(("value", "text"), [(1.234, "1.23"), (0.1, "0.10"), (0.0567, "0.057"), (0.00123, "0.0012")])
def test_distance(value: float, text: str):
    assert render.distance(value) == text


def test_count():
    assert [render.count(n, "class", "classes") for n in (0, 1, 2000)] == ["0 classes", "1 class", "2,000 classes"]


def test_a_strip_describes_its_pictures_and_marks_missing_ones():
    shown = Read(render.strip([render.Tile("data:x", HOSTILE, "a", "b", HOSTILE), render.Tile(None, "lost")], HOSTILE))
    assert shown.all("ul")[0]["aria-label"] == HOSTILE
    assert shown.all("img")[0]["alt"] == HOSTILE
    assert shown.all("script") == []
    assert [span["aria-label"] for span in shown.all("span")] == ["lost"]


def test_bars_are_drawn_to_the_scale_of_all_probability():
    shown = Read(render.bars([("a", 0.75), (HOSTILE, 0.0)]))
    assert [bar["style"] for bar in shown.all("i")] == ["width:75.00%", "width:0.00%"]
    assert "75%" in shown.texts


def test_the_panel_of_a_prediction(classifier: Classifier):
    prediction = classifier.predict([picture(1)])[0]
    shown = Read(render.prediction_panel(classifier, prediction))
    assert prediction.classes[0].name in shown.texts
    assert prediction.superclass in shown.texts
    assert len(shown.all("img")) == len(prediction.prototypes) + len(prediction.neighbours)
    assert all(image["src"].startswith("data:image/webp;base64,") and image["alt"] for image in shown.all("img"))
    assert not any("Unlike anything" in text for text in shown.texts)


def test_the_panel_flags_what_is_novel(classifier: Classifier):
    prediction = classifier.predict([picture(50)])[0]
    strange = prediction.novelty._replace(score=0.7, is_novel=True)
    shown = render.prediction_panel(classifier, _replaced(prediction, novelty=strange))
    assert "Unlike anything in the gallery" in shown
    assert "0.70" in shown
    assert "95%" in shown
    assert "Measured" not in shown


def test_the_panel_says_how_often_the_flag_was_raised(classifier: Classifier):
    prediction = classifier.predict([picture(50)])[0]
    strange = _replaced(prediction, novelty=prediction.novelty._replace(is_novel=True))
    measured = copy.copy(classifier)
    measured.config = copy.deepcopy(classifier.config)
    measured.config["fgdemo"]["novelty"]["measured"] = [
        {"data": "a test", "flagged": 0.061, "n": 960},
        {"data": "b test", "flagged": 0.998, "n": 270},
    ]
    shown = render.prediction_panel(measured, strange)
    assert "Measured: this flags 6% of a test and &gt;99% of b test." in shown


def test_the_panel_of_a_class_without_subclasses(classifier: Classifier):
    prediction = _replaced(classifier.predict([picture(1)])[0], subclass=None, runner_up=None, prototypes=())
    assert "no subclasses" in render.prediction_panel(classifier, prediction)


def test_a_thumbnail_that_is_no_picture_is_left_out(classifier: Classifier):
    gallery = classifier.gallery
    broken = _replaced(gallery, thumbnails=np.zeros_like(gallery.thumbnails))
    assert render.thumbnail_url(gallery, 0).startswith("data:image/webp")
    assert render.thumbnail_url(broken, 0) is None


def test_a_row_to_rename_keeps_what_was_typed():
    shown = Read(render.subclass_row(facts(name=HOSTILE), None, [], 80))
    assert shown.all("input")[0]["value"] == shown.all("input")[0]["data-saved"] == HOSTILE
    assert "class" not in shown.all("input")[0]
    typed = Read(render.subclass_row(facts(), "striped", [], 80)).all("input")[0]
    assert (typed["value"], typed["data-saved"], typed["class"]) == ("striped", "spotted", "fg-changed")


def test_figures_that_are_not_known_are_not_shown():
    texts = Read(render.subclass_row(facts(), None, [], 80)).texts
    assert ("Spread" in texts, "0.25" in texts, "Silhouette" in texts) == (True, True, False)


def test_summary_counts_what_the_checkpoint_holds(classifier: Classifier):
    texts = Read(render.summary(classifier)).texts
    assert texts == ["classify on drawn (test_vit)", "3 classes", "3 subclasses", "9 gallery pictures", "test_vit"]


def test_the_colour_bar_has_the_ends_of_the_scale():
    shown = Read(render.color_bar(color_table("magma"), 0, 12, "votes", "What it means."))
    assert [text for text in shown.texts if text in ("0", "12", "votes", "What it means.")] == shown.texts
    assert "#000004" in shown.all("div")[1]["style"]


def test_the_verdict_escapes_the_class():
    shown = Read(render.verdict("above", ClassScore(0, HOSTILE, 0.5)))
    assert HOSTILE in "".join(shown.texts)


def _replaced(value: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(value, **changes)
