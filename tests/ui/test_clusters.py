"""A checkpoint without labels in the app: clusters are what every tab shows, and no class is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from accelerate.state import AcceleratorState
from tiny_checkpoint import picture

from fgdemo.errors import UserError
from fgdemo.predict import Classifier
from fgdemo.ui import recluster_report as report
from fgdemo.ui import render
from fgdemo.ui.build import build
from fgdemo.ui.exploration import Explorer, View
from fgdemo.ui.session import App
from train.__main__ import main

SETTINGS = {"method": "kmeans", "k": 2, "pca_dim": None, "seed": 0, "projection": "pca"}
OPTIONS = ([], "kmeans", False, 2, 0, 0, 1, "pca")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    base = tmp_path_factory.mktemp("clusters")
    (base / "pictures").mkdir()
    for row in range(18):
        picture(row).save(base / "pictures" / f"{row:02d}.png")
    common = ["--no-pretrained", "--img-size", "64", "--device", "cpu", "--workers", "0"]
    for name, encoder in (("cnn", "test_resnet"), ("vit", "test_vit")):
        AcceleratorState._reset_state(True)
        words = ["--no-labels", "--clusters", "3", "--encoder", encoder, "--out", str(base / "made" / name)]
        assert main(["index", str(base / "pictures"), *words, *common]) == 0
    return App([base / "made"], saved=base / "saved", device="cpu")


@pytest.fixture(scope="module")
def classifier(app: App) -> Classifier:
    return app.classifier("cnn")


@pytest.fixture(scope="module")
def tabs(app: App) -> Callable:
    """`tabs("recluster", "limits", ...)` calls the callback of that name in that tab."""
    fns = [fn.fn for fn in build(app).fns.values() if fn.fn]
    own = {(fn.__module__.rpartition(".")[2], fn.__name__): fn for fn in fns}
    return lambda tab, name, *arguments: own[tab, name](*arguments)


def words(html: str) -> str:
    """What a person reads, tooltips and descriptions included."""

    class Text(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []
            self.feed(html)

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [v for k, v in attrs if k in ("title", "alt", "aria-label") and v]

        def handle_data(self, data: str) -> None:
            self.found.append(data)

    return " ".join(Text().found)


def speaks_of_clusters(html: str) -> str:
    """The text, which mentions no class, no subclass and no certainty about either."""
    text = words(html)
    assert not re.search(r"\b(sub)?class(es)?\b|all pictures|100%", text, re.IGNORECASE), text
    return text


def test_the_summary_counts_clusters(classifier: Classifier) -> None:
    assert "3 clusters 18 gallery pictures" in speaks_of_clusters(render.summary(classifier))


def test_a_prediction_leads_with_the_cluster(classifier: Classifier) -> None:
    prediction = classifier.predict([picture(40)])[0]
    text = speaks_of_clusters(render.prediction_panel(classifier, prediction))
    name = prediction.subclass.name
    assert text.index(f"Nearest cluster Cluster {name}") < text.index("Distance") < text.index("Nearest in the gallery")
    nearest = classifier.gallery.members[prediction.neighbours[0].subclass_id]["name"]
    assert f"Gallery picture of Cluster {nearest}, {prediction.neighbours[0].key}" in text


def test_what_is_novel_is_flagged_in_its_own_words(classifier: Classifier) -> None:
    prediction = classifier.predict([picture(40)])[0]
    strange = replace(prediction, novelty=prediction.novelty._replace(is_novel=True))
    text = speaks_of_clusters(render.prediction_panel(classifier, strange))
    assert "the gallery's own pictures" in text
    assert "Take the cluster below with caution" in text


def test_without_any_cluster_it_says_so(classifier: Classifier) -> None:
    prediction = classifier.predict([picture(40)])[0]
    bare = replace(prediction, subclass=None, runner_up=None, prototypes=())
    assert "No clusters" in speaks_of_clusters(render.prediction_panel(classifier, bare))


def test_prototypes_need_no_choice_of_a_class(tabs: Callable, classifier: Classifier) -> None:
    chosen = tabs("prototypes", "classes", "cnn")
    assert (chosen["visible"], chosen["value"]) == (False, "0")
    text = speaks_of_clusters(tabs("prototypes", "show", "cnn", "0", None))
    assert text.count("Prototypes of") == 3


@pytest.mark.parametrize(("name", "hint"), [("cnn", "likeness to the nearest gallery pictures"), ("vit", "head votes")])
def test_explanations_name_the_cluster(tabs: Callable, tmp_path: Path, name: str, hint: str) -> None:
    controls = tabs("explain", "controls", name)
    assert controls[-1]["visible"] is False
    picture(40).save(tmp_path / "p.png")
    shown = tabs("explain", "show", str(tmp_path / "p.png"), name, "votes", "all", "all", None, 0.7)
    assert "Nearest cluster" in speaks_of_clusters(shown[0])
    assert hint in words(shown[2])


def test_reclustering_takes_all_pictures_as_one(tabs: Callable) -> None:
    changed = tabs("recluster", "change_checkpoint", "cnn", [])
    assert changed[-2]["visible"] is False
    assert tabs("recluster", "limits", "cnn", [], "kmeans", False)[1]["label"] == "Number of clusters"
    assert tabs("recluster", "limits", "cnn", [], "kmeans", False)[1]["maximum"] == 18
    first = tabs("recluster", "start", "cnn", "pca", [], gr.EventData(None, {"name": "cnn"}))
    after = tabs("recluster", "again", "cnn", *OPTIONS, first[7])
    assert "18 pictures in 2 clusters" in speaks_of_clusters(after[1])
    assert {group["class"] for group in after[0]["groups"]} == {""}


@pytest.fixture(scope="module")
def view(app: App) -> View:
    explorer = Explorer(app)
    return explorer.recluster(explorer.start("cnn"), [], **SETTINGS)


def test_the_report_of_a_division(view: View) -> None:
    text = words(report.figures(view)).replace("all pictures", "")
    assert "number of clusters" in text
    assert "subclass" not in text.lower()
    prototypes = speaks_of_clusters(report.prototypes(view))
    assert "Prototypes of the cluster" in prototypes
    point = int(np.flatnonzero(view.group_ids == view.groups[0].id)[0])
    assert f"Cluster {view.groups[0].name}" in speaks_of_clusters(report.point_panel(view, point))


def test_too_many_clusters_are_refused_in_words_of_clusters(app: App, view: View) -> None:
    with pytest.raises(UserError, match="K is 19, but there are 18 training pictures"):
        Explorer(app).recluster(view, [], **{**SETTINGS, "k": 19})
