"""Why a class has as many subclasses as it has, and what the Prototypes and Classify tabs show beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
import torch
from tiny_checkpoint import picture, write_divided, write_tiny

from fgdemo.clustering.criteria import CRITERIA as KNOWN
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery
from fgdemo.html_page import plotly_js
from fgdemo.terms import CLUSTERS, SUBCLASSES
from fgdemo.ui import render
from fgdemo.ui.build import build
from fgdemo.ui.chart import STATIC
from fgdemo.ui.divisions import CHOSEN
from fgdemo.ui.exploration import Explorer
from fgdemo.ui.session import App
from fgdemo.ui.why_k import CRITERIA, MOST_CURVES, WhyK, score_text, sentence, why


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    folder = tmp_path_factory.mktemp("why")
    write_divided(folder / "divided")
    write_tiny(folder / "tiny")
    return App([folder], saved=folder / "saved", device="cpu")


@pytest.fixture(scope="module")
def gallery(app: App) -> Gallery:
    return app.classifier("divided").gallery


@pytest.fixture(scope="module")
def tab(app: App) -> Callable:
    """`tab("show", ...)` calls the callback of that name in the Prototypes tab."""
    page = build(app)
    own = {fn.name: fn.fn for fn in page.fns.values() if fn.fn and fn.fn.__module__ == "fgdemo.ui.prototypes"}
    return lambda name, *arguments: own[name](*arguments)


def test_every_criterion_has_its_words():
    assert CRITERIA.keys() == KNOWN.keys()
    for chosen_by in CRITERIA:
        for words in (SUBCLASSES, CLUSTERS):
            text = sentence({1: 0.0, 2: 0.5}, 2, chosen_by, words)
            assert not set("{}") & set(text)
            assert words is SUBCLASSES or "subclass" not in text


@pytest.mark.parametrize(
    ("scores", "chosen", "said"),
    [
        ({2: 0.5, 3: 0.9, 4: 0.7}, 3, "K = 3 was chosen by the silhouette: .* No other K scores higher."),
        ({2: 0.5, 3: 0.9}, 2, "K = 2 was chosen by .* K = 3 scores higher."),
        ({2: 0.5, 3: 0.9, 4: 0.7}, 2, "K = 3 and 4 score higher."),
        ({k: k / 10 for k in range(1, 8)}, 2, "5 other K score higher."),
        ({2: 0.5, 3: 0.9}, 1, "None of these K was taken by the silhouette: .* stay one subclass."),
    ],
)
def test_the_sentence_says_what_the_scores_say(scores: dict[int, float], chosen: int, said: str):
    assert re.search(said, sentence(scores, chosen, "silhouette", SUBCLASSES))


def test_a_criterion_of_another_version_is_named_and_nothing_claimed():
    assert (
        sentence({1: 0.1, 2: 0.2}, 2, "oracle", SUBCLASSES) == "K = 2 was chosen by oracle. No other K scores higher."
    )


@pytest.mark.parametrize(("score", "text"), [(0.926, "0.93"), (-1234.6, "\N{MINUS SIGN}1,235"), (0.0012, "0.0012")])
def test_scores_are_short(score: float, text: str):
    assert score_text(score) == text


def test_curves_are_the_stored_scores(gallery: Gallery):
    told = json.loads(json.dumps(why(gallery, [0, 1, 2], ("apple", "moss", "sky"), SUBCLASSES), allow_nan=False))
    assert [curve["class"] for curve in told["curves"]] == ["apple", "moss"]
    for curve, entry in zip(told["curves"], gallery.subclasses["classes"], strict=False):
        assert curve["chosen"] == entry["k"]
        assert curve["criterion"] == "Silhouette"
        assert dict(zip(map(str, curve["ks"]), curve["scores"], strict=True)) == entry["scores"]
        assert curve["ks"] == sorted(curve["ks"])
    assert told["curves"][0]["title"] == "Why 3 subclasses"
    assert told["note"] == ""


def test_nothing_to_compare_is_nothing_to_show(app: App, gallery: Gallery):
    assert why(gallery, [2], ("apple", "moss", "sky"), SUBCLASSES) is None
    plain = app.classifier("tiny")
    assert why(plain.gallery, [0, 1, 2], plain.classes, SUBCLASSES) is None
    given = Explorer(app).recluster(
        Explorer(app).start("divided"), [0], method="kmeans", k=2, pca_dim=None, seed=0, projection="pca"
    )
    assert why(given.gallery, given.class_ids, given.class_names, given.words) is None


def test_many_classes_are_cut_short_and_it_is_said(gallery: Gallery):
    entry = gallery.subclasses["classes"][0]
    many = [{**entry, "class_id": c} for c in range(MOST_CURVES + 3)]
    crowded = replace(gallery, subclasses={**gallery.subclasses, "classes": many})
    told = why(crowded, range(len(many)), [str(c) for c in range(len(many))], SUBCLASSES)
    assert len(told["curves"]) == MOST_CURVES
    assert told["note"].startswith(f"The first {MOST_CURVES} of {MOST_CURVES + 3} classes")


def test_the_component_takes_texts_as_data():
    script = "".join((STATIC / name).read_text(encoding="utf-8") for name in ("plotly.js", "why_k.js"))
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "http://", "https://"):
        assert word not in script
    assert "${" not in (STATIC / "why_k.html").read_text(encoding="utf-8")
    with gr.Blocks():
        config = WhyK().get_config()
    assert config["props"]["library"] == plotly_js().as_posix()
    assert config["value"] is None


def test_prototypes_offer_the_chosen_k_first(tab: Callable):
    rows, choice, reason = tab("show_class", "divided", "0", None)
    assert choice["visible"]
    assert choice["value"] == CHOSEN
    labels = [label for label, _ in choice["choices"]]
    assert [re.match(r"K = \d, \w+", label).group() for label in labels] == [
        "K = 3, chosen",
        "K = 2, hypothesis",
        "K = 4, hypothesis",
    ]
    assert all(re.search(r", score 0\.\d\d$", label) for label in labels)
    assert reason["curves"][0]["chosen"] == 3
    assert rows == tab("show", "divided", "0", None, CHOSEN) == tab("show", "divided", "0", None)
    assert rows.count("data-subclass=") == 3


def test_a_hypothesis_says_that_it_is_one(tab: Callable, gallery: Gallery):
    html = tab("show", "divided", "0", None, "2")
    assert "Hypothesis K = 2" in html
    scores = gallery.subclasses["classes"][0]["scores"]
    told = f"Its silhouette is {scores['2']:.2f}, that of the chosen K = 3 is {scores['3']:.2f}."
    assert told in html
    assert [f"Cluster {n} of 2" in html for n in (1, 2, 3)] == [True, True, False]
    assert "16 pictures" in html
    assert "data-subclass" not in html, "a hypothesis has no names to edit"
    assert html.count("<img") == 12 + 8


def test_what_is_not_there_is_not_offered(tab: Callable):
    for name, class_id in (("tiny", "0"), ("divided", "2")):
        _, choice, reason = tab("show_class", name, class_id, None)
        assert not choice["visible"]
        assert reason is None
    assert tab("show_class", "divided", None, None)[1:] == [gr.update(choices=[], value=None, visible=False), None]
    for k in ("5", "x", "-1", "9" * 99):
        with pytest.raises(gr.Error, match="choose"):
            tab("show", "divided", "0", None, k)


def test_the_endpoint_tells_of_the_choice_too(tab: Callable, gallery: Gallery):
    answer = tab("prototypes", "apple", "divided", 1)
    entry = gallery.subclasses["classes"][0]
    assert (answer["chosen_by"], answer["scores"], answer["hypotheses"]) == ("silhouette", entry["scores"], [2, 4])
    assert tab("prototypes", "apple", "tiny", 1)["hypotheses"] == []
    assert tab("prototypes", "sky", "tiny", 1)["scores"] == {}


@pytest.mark.parametrize(("class_id", "shown"), [(1, True), (2, False)])
def test_classify_shows_the_posterior_where_it_says_something(tmp_path: Path, class_id: int, shown: bool):
    write_divided(tmp_path / "one")
    classifier = App([tmp_path], saved=tmp_path / "saved", device="cpu").classifier("one")
    with torch.no_grad():
        classifier.network.encoder.net.get_classifier().bias.view(3, -1)[class_id] += 1e3
    prediction = classifier.predict([picture(0)])[0]
    html = render.prediction_panel(classifier, prediction)
    assert ('aria-label="Most probable subclasses"' in html) == shown
    if shown:
        shares = re.findall(r'title="Subclass (\w)">.*?fg-bar-value">(.*?)<', html)
        assert shares == [(share.name, render.percent(share.probability)) for share in prediction.posterior]
        agrees = prediction.posterior[0].id == prediction.subclass.id
        assert f"This {'agrees with' if agrees else 'differs from'} the nearest one" in html


def test_user_errors_of_hypotheses_are_sentences(app: App):
    from fgdemo.ui.divisions import division_under

    with pytest.raises(UserError, match="no hypothesis K = 9"):
        division_under(app, "divided", 0, 9)
