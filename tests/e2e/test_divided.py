"""A network that knows subclasses, in a browser: its posterior, hypotheses of K, and why K was chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from gradio_client import Client, handle_file

from .conftest import SIZES, Server, choose

NAME = "e-divided"


def curve(page, where: str) -> dict:
    """What plotly drew of the scores, once it has."""
    page.wait_for_selector(f"#{where} .why[data-drawn]")
    return page.evaluate(
        """(where) => {
          const {data, layout} = document.querySelector(`#${where} .plot`);
          return {x: data[0].x, y: data[0].y, marked: data[1].x, said: layout.annotations.map((a) => a.text)};
        }""",
        where,
    )


def narrow_enough(page) -> None:
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(200)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, size


def test_the_posterior_stands_beside_the_nearest_subclass(open_page, photo: Path, server: Server):
    page = open_page(NAME)
    page.locator("#classify-picture input[type=file]").first.set_input_files(photo)
    page.wait_for_selector("#classify-result .fg-result")
    client = Client(server.url, verbose=False)
    answer = client.predict(handle_file(photo), NAME, api_name="/classify")
    client.close()
    bars = page.get_by_role("list", name="Most probable subclasses").locator(".fg-bar-name").all_inner_texts()
    assert len(answer["posterior"]) > 1
    assert bars == [f"Subclass {share['name']}" for share in answer["posterior"]]
    assert sum(share["probability"] for share in answer["posterior"]) == pytest.approx(1)
    narrow_enough(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_prototypes_of_a_hypothesis_and_the_curve(open_page, scheme: str):
    page = open_page(NAME, scheme=scheme)
    page.get_by_role("tab", name="Prototypes").click()
    found = curve(page, "prototypes-why")
    assert found["x"] == [2, 3, 4]
    assert found["marked"] == [3]
    assert found["said"] == ["K = 3, chosen"]
    assert max(found["y"]) == found["y"][1]
    assert "K = 3 was chosen by the silhouette" in page.inner_text("#prototypes-why .sentence")
    assert page.locator("#prototypes-rows input").count() == 3
    page.locator("#prototypes-k input").click()
    assert page.get_by_role("option").count() == 3
    page.get_by_role("option", name="K = 2, hypothesis").click()
    page.get_by_text("Hypothesis K = 2").wait_for()
    assert page.locator("#prototypes-rows article").count() == 2
    assert page.locator("#prototypes-rows input").count() == 0
    narrow_enough(page)
    # another class starts with its own choice, and one of a single picture has nothing to choose or explain
    choose(page, "#prototypes-class", "moss")
    page.wait_for_function("document.querySelectorAll('#prototypes-rows input').length === 2")
    page.wait_for_selector("#prototypes-why .why[data-drawn='Why 2 subclasses']")
    choose(page, "#prototypes-class", "sky")
    page.wait_for_function("document.querySelectorAll('#prototypes-rows input').length === 1")
    page.wait_for_selector("#prototypes-k", state="detached")
    page.wait_for_selector("#prototypes-why", state="hidden")


def test_recluster_explains_its_own_choice(open_page):
    page = open_page(NAME)
    page.get_by_role("tab", name="Re-cluster").click()
    page.locator("#rc-scatter .frame").scroll_into_view_if_needed()
    page.wait_for_selector("#rc-scatter .frame.drawn")
    page.locator("#rc-why .why").scroll_into_view_if_needed()
    assert curve(page, "rc-why")["x"] == [2, 3, 4]
    menu = page.locator("#rc-why select")
    assert menu.locator("option").all_inner_texts() == ["apple", "moss"]
    menu.select_option("moss")
    page.wait_for_selector("#rc-why .why[data-drawn='Why 2 subclasses']")
    page.locator("#rc-run").click()
    page.wait_for_selector("#rc-figures table")
    page.wait_for_function("document.querySelector('#rc-why .plot').data[0].x[0] === 1")
    assert curve(page, "rc-why")["marked"] == [2]
    assert menu.input_value() == "moss"
    narrow_enough(page)
    # a number that a person gave was chosen by no score
    choose(page, "#rc-classes", "apple")
    page.locator("#rc-automatic input").uncheck()
    page.locator("#rc-run").click()
    page.wait_for_selector("#rc-why", state="hidden")


def test_without_hypotheses_nothing_is_shown_of_them(open_page):
    page = open_page("a-vit")
    page.get_by_role("tab", name="Prototypes").click()
    page.wait_for_selector("#prototypes-rows article")
    assert page.locator("#prototypes-k").count() == 0
    assert not page.locator("#prototypes-why").is_visible()
    page.get_by_role("tab", name="Re-cluster").click()
    page.locator("#rc-scatter .frame").scroll_into_view_if_needed()
    page.wait_for_selector("#rc-scatter .frame.drawn")
    assert not page.locator("#rc-why").is_visible()
