"""The Explain tab of a network that votes: candidates, quotas, stages, scales, and two pictures on one scale."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import gradio as gr
import numpy as np
import pytest
from tiny_checkpoint import make_voting_network, picture, write_tiny

from fgdemo.errors import UserError
from fgdemo.explain.draw import block_colors, overlay
from fgdemo.explain.voting_trace import Candidate, CandidatePool
from fgdemo.ui import explain_pool
from fgdemo.ui.build import build
from fgdemo.ui.explain_views import Chosen, draw, explained, filmstrip
from fgdemo.ui.session import App

from .test_render import HOSTILE, Read

CONTROLS = ("what", "block", "head", "scale", "compare", "target")
SHOWN = ("caption", "drawn", "key", "blocks", "target", "caption_2", "drawn_2", "beside", "pool")
NETWORKS = {
    "voting": {},
    "weighed": {"weights": "attention", "dilations": (2,), "merger": True, "refined": 20, "candidates": 20},
    "token": {"selection": "class-token"},
    "random": {"selection": "random", "key_block": False},
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    base = tmp_path_factory.mktemp("explain")
    write_tiny(base / "plain")
    for name, settings in NETWORKS.items():
        write_tiny(base / name, network=make_voting_network(**settings))
    return App([base], saved=base / "saved", device="cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / "a.png", folder / "b.png"]
    picture(50, (120, 80)).save(paths[0])
    picture(31, (80, 120)).save(paths[1])
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def tab(app: App) -> Callable:
    """`tab("show", ...)` calls the callback of that name."""
    own = {fn.fn.__name__: fn.fn for fn in build(app).fns.values() if fn.fn and ".explain" in fn.fn.__module__}
    return lambda name, *arguments, **named: own[name](*arguments, **named)


@pytest.fixture(scope="module")
def show(tab: Callable, photos: list[str]) -> Callable:
    """What the page shows of the first photo."""

    def call(name: str = "voting", what: str = "votes", block: str = "all", head: str = "all", **more: Any) -> dict:
        return dict(zip(SHOWN, tab("show", photos[0], name, what, block, head, None, 0.7, **more), strict=True))

    return call


def pixels(update: dict[str, Any]) -> np.ndarray:
    return np.asarray(update["value"])


class Table(HTMLParser):
    """Texts of the cells of each table row, the heads' first, and the styles of the bars in them."""

    def __init__(self, html: str, kind: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.styles: list[str] = []
        self.feed(html.split(f'<table class="{kind}">')[1].split("</table>")[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        elif tag == "i" and "width" in dict(attrs)["style"]:
            self.styles.append(dict(attrs)["style"])

    def handle_data(self, data: str) -> None:
        self.rows[-1][-1] += data


def test_what_can_be_chosen_depends_on_the_network(tab: Callable):
    def of(name: str) -> dict:
        return dict(zip(CONTROLS, tab("controls", name), strict=True))

    voting, plain, token = of("voting"), of("plain"), of("token")
    offered = [[value for _, value in found["what"]["choices"]] for found in (voting, plain, token)]
    assert offered == [["votes", "scores", "attention", "candidates"], *[["votes", "scores", "attention"]] * 2]
    assert [found["compare"]["visible"] for found in (voting, plain, token)] == [True, False, True]
    assert [len(found["block"]["choices"]) for found in (voting, plain)] == [6, 7]
    assert [value for _, value in voting["scale"]["choices"]] == ["all", "1", "2", "4"]
    assert not voting["scale"]["visible"]


def test_only_choices_that_the_view_has_are_in_sight(tab: Callable):
    def of(name: str, what: str) -> list[bool]:
        return [update["visible"] for update in tab("fit", name, what)]

    assert [of("voting", what) for what in ("votes", "scores", "candidates")] == [
        [True, False],
        [True, True],
        [False, False],
    ]
    assert of("weighed", "scores") == of("plain", "scores") == [True, False]


def test_candidates_are_drawn_in_the_colours_of_their_blocks(app: App, show: Callable, photos: list[str]):
    found = explained(app, "voting", photos[0], None)
    whole, fourth = pixels(show(what="candidates")["drawn"]), pixels(show(what="candidates", block="3")["drawn"])
    colors = block_colors(5)
    x0, y0, x1, y1 = found.box
    kept = found.explanation.candidates(3)
    for drawn, candidates in ((whole, found.explanation.candidates()), (fourth, kept)):
        alone = {}
        for c in candidates:
            alone.setdefault((c.y, c.x), []).append(c)
        seen = 0
        for (y, x), blocks in alone.items():
            at = int(y0 + (y + 0.5) * (y1 - y0) / 12), int(x0 + (x + 0.5) * (x1 - x0) / 12)
            if len(blocks) == 1 and 0 <= at[0] < drawn.shape[0] and 0 <= at[1] < drawn.shape[1]:
                under = np.asarray(found.image)[at].astype(float)
                np.testing.assert_allclose(drawn[at], 0.3 * under + 0.7 * colors[blocks[0].block], atol=2)
                seen += 1
        assert seen > 0
    assert (whole != fourth).any()
    # A head or a scale chosen for another view changes nothing, and is not lost.
    np.testing.assert_array_equal(pixels(show(what="candidates", head="1", scale="2")["drawn"]), whole)


def test_the_key_says_how_candidates_were_chosen(show: Callable):
    texts = {name: " ".join(Read(show(name, "candidates")["key"]).texts) for name in ("voting", "weighed", "random")}
    assert "4 survivors" in texts["voting"]
    assert "final vote" in texts["voting"]
    assert "merged token" in texts["weighed"]
    assert "at random" in texts["random"]
    assert "no further use" in texts["random"]
    assert "weigh" in show("weighed", "votes")["key"]
    assert "counts the votes" in show("voting", "votes")["key"]


def test_quotas_are_bars_in_the_colours_of_the_blocks(app: App, show: Callable, photos: list[str]):
    pool = explained(app, "voting", photos[0], None).explanation.pool
    shown = Table(show()["pool"], "ex-quotas")
    assert shown.rows[0] == ["Block", "Candidates", "Refined"]
    assert shown.rows[1:] == [[str(b), str(q), str(pool.refined_of(b))] for b, q in enumerate(pool.quotas)]
    assert shown.styles == [
        f"width:{100 * quota / max(pool.quotas):.2f}%;background:#{bytes(color).hex()}"
        for quota, color in zip(pool.quotas, block_colors(5).tolist(), strict=True)
    ]
    assert "merged" not in show()["pool"]
    assert "merged" in show("weighed")["pool"]


def test_stages_stand_side_by_side(app: App, show: Callable, photos: list[str]):
    stages = explained(app, "voting", photos[0], None).explanation.pool.probabilities
    shown = Table(show()["pool"], "ex-stages")
    assert shown.rows[0] == ["Class", "All", "Refined", "Final"]
    order = np.argsort(-stages["final"]).tolist()
    assert [row[0] for row in shown.rows[1:]] == [app.classifier("voting").classes[c] for c in order]
    widths = [f"width:{100 * shares[c]:.2f}%" for c in order for shares in stages.values()]
    assert shown.styles == widths
    assert Table(show("random")["pool"], "ex-stages").rows[0] == ["Class", "Final"]
    assert "class token alone" in show("token")["pool"]
    assert "ex-quotas" not in show("token")["pool"]


def pool_of(**stages: list[float]) -> CandidatePool:
    probabilities = {stage: np.array(shares, np.float32) for stage, shares in stages.items()}
    return CandidatePool((Candidate(0, 0, 0, 1.0, 0, 1, 0),), (1,), "votes", probabilities, np.zeros(4, np.float32))


def test_a_class_that_leads_at_one_stage_only_is_shown_too():
    pool = pool_of(all_candidates=[0.1, 0.2, 0.1, 0.6], final=[0.3, 0.4, 0.2, 0.1])
    shown = explain_pool.probabilities(pool, ["a", HOSTILE, "c", "d"], 2)
    assert [row[0] for row in Table(shown, "ex-stages").rows] == ["Class", HOSTILE, "a", "d"]
    leading = [at for at, attributes in enumerate(Read(shown).all("td")) if attributes.get("class") == "ex-leads"]
    assert leading == [1, 4]


def test_two_pictures_share_one_colour_scale(app: App, show: Callable, photos: list[str]):
    found = [explained(app, "voting", photo, None) for photo in photos]
    for what, block, head, scale in (("attention", "2", "1", "all"), ("scores", "all", "all", "2")):
        chosen = [int(value) if value.isdigit() else value for value in (block, head, scale)]
        views = [one.explanation.select(chosen[0], chosen[1], what, chosen[2]) for one in found]
        tops = [view.vmax for view in views]
        assert tops[0] != tops[1]
        both = show(what=what, block=block, head=head, scale=scale, other=photos[1])
        assert f"to {max(tops):.3g}" in both["key"]
        for drawn, one, view in zip(("drawn", "drawn_2"), found, views, strict=True):
            expected = overlay(one.image, view.map, one.box, opacity=0.7, vmax=max(tops))
            np.testing.assert_array_equal(pixels(both[drawn]), expected)


def test_a_second_picture_comes_with_all_of_its_own(show: Callable, photos: list[str]):
    alone, both = show(what="candidates"), show(what="candidates", other=photos[1])
    assert (alone["beside"]["visible"], both["beside"]["visible"]) == (False, True)
    assert (alone["drawn_2"]["visible"], alone["caption_2"]) == (False, "")
    assert "Predicted class" in both["caption_2"]
    assert "4 survivors" in alone["key"]
    assert "the survivors" in both["key"]
    assert len(Read(both["blocks"]).all("img")) == 2 * len(Read(alone["blocks"]).all("img")) == 10
    assert Table(both["pool"], "ex-quotas").rows[0][2:] == ["Refined, first picture", "Refined, second picture"]
    assert both["pool"].count("ex-stages") == 2
    turned = show(name="plain", other=photos[1])
    assert (turned["beside"]["visible"], turned["pool"]) == (False, "")


def test_without_a_picture_nothing_is_left(tab: Callable):
    shown = dict(zip(SHOWN, tab("show", None, "voting", "candidates", "all", "all", None, 0.7), strict=True))
    assert "No picture yet" in shown["caption"]
    assert (shown["pool"], shown["blocks"], shown["key"]) == ("", "", "")


def test_a_block_is_pressed_in_the_strip(app: App, photos: list[str]):
    found = [explained(app, "voting", photos[0], None)]
    pressed = Read(filmstrip(found, Chosen("candidates", block=1))).all("button")
    assert [button["aria-pressed"] for button in pressed] == ["false", "true", "false", "false", "false"]


def test_impossible_choices_are_refused(app: App, photos: list[str]):
    found = [explained(app, "voting", photos[0], None)]
    for chosen, message in (
        (Chosen("dreams"), "votes, scores, attention, candidates, not 'dreams'"),
        (Chosen("candidates", head=1), "leave both at 'all'"),
        (Chosen("candidates", scale=2), "leave both at 'all'"),
        (Chosen("candidates", block=5), "block must be 0 to 4"),
        (Chosen("scores", scale=3), "scale must be 1, 2, 4 or 'all'"),
        (Chosen("votes", scale=2), "only 'all'"),
        (Chosen("candidates", opacity=7), "0 to 1"),
    ):
        with pytest.raises(UserError, match=message):
            draw(found, chosen)
    with pytest.raises(UserError, match="not 'candidates'"):
        draw([explained(app, "plain", photos[0], None)], Chosen("candidates"))


def test_the_endpoint_tells_all(app: App, tab: Callable, photos: list[str]):
    found = explained(app, "voting", photos[0], None).explanation
    _, told = tab("explain", photos[0], "voting", 1, None, "scores", None, None, 2)
    np.testing.assert_array_equal(told["shown"]["map"], found.select(1, "all", "scores", 2).map)
    assert (told["shown"]["scale"], told["shown"]["vmax"]) == (2, found.voting.scale_scores.max())
    assert told["quotas"] == list(found.pool.quotas)
    assert {"candidates", "refined", "probabilities", "assistance", "scale_scores"} <= set(told)
    image, told = tab("explain", photos[0], "voting", 4, None, "candidates", None, 1.0)
    assert told["shown"] == {
        "block": 4,
        "what": "candidates",
        "candidates": [candidate._asdict() for candidate in found.candidates(4)],
    }
    expected = draw([explained(app, "voting", photos[0], None)], Chosen("candidates", block=4, opacity=1.0)).images[0]
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
    with pytest.raises(gr.Error, match="scale must be"):
        tab("explain", photos[0], "voting", None, None, "scores", None, None, 3)
