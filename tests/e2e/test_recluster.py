"""The Re-cluster tab in a browser: draw, divide, look at a point, step back, take away, keep."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from support.digits_checkpoint import write_digits

from fgdemo.checkpoint import read_checkpoint

from .conftest import SIZES, Server, choose

NAME = "digits-pixels"
STALE = "The clusters changed or expired: run it again."


@pytest.fixture(scope="module", autouse=True)
def digits(server: Server) -> Path:
    return write_digits(server.checkpoints / NAME)


@pytest.fixture(scope="module")
def client(server: Server, digits: Path) -> Client:
    return Client(server.url, verbose=False)


def open_tab(open_page, **options):
    page = open_page(NAME, **options)
    page.get_by_role("tab", name="Re-cluster").click()
    page.locator("#rc-scatter .frame").scroll_into_view_if_needed()
    page.locator("#rc-caption", has_text="of 4 classes").wait_for()
    page.wait_for_selector("#rc-scatter .frame.drawn")
    # the picker may say its name twice while a page loads, and a second picture replace the first
    drawn = None
    while drawn != (drawn := result(page)):
        page.wait_for_timeout(500)
    return page


def result(page) -> str:
    return page.get_attribute("#rc-scatter .frame", "data-result")


def press(page, button: str) -> str:
    """Press a button and wait for the picture that it leads to."""
    before = result(page)
    page.locator(button).click()
    page.wait_for_function(
        "(old) => ![old, undefined].includes(document.querySelector('#rc-scatter .frame').dataset.result)", arg=before
    )
    return result(page)


def traces(page) -> list[dict]:
    """What plotly holds: the type, number of points and colour of every visible trace."""
    return page.evaluate(
        """() => document.querySelector('#rc-scatter .plot').data.filter((t) => t.visible !== false).map(
             (t) => ({type: t.type, n: t.x.length, colour: t.marker.color, opacity: t.marker.opacity}))"""
    )


def place(page, trace: int, i: int) -> tuple[float, float, int]:
    """Where a point lies on the screen, and its number."""
    return page.evaluate(
        """([trace, i]) => {
          const plot = document.querySelector('#rc-scatter .plot');
          const box = plot.getBoundingClientRect();
          const {xaxis, yaxis} = plot._fullLayout;
          const t = plot.data[trace];
          const x = box.x + xaxis._offset + xaxis.d2p(t.x[i]);
          const y = box.y + yaxis._offset + yaxis.d2p(t.y[i]);
          return [x, y, t.customdata[i]];
        }""",
        [trace, i],
    )


def lonely(page) -> tuple[float, float, int]:
    """The point that lies farthest from its nearest neighbour, so that a press can only mean it."""
    points = [place(page, t, i) for t, trace in enumerate(traces(page)) for i in range(0, trace["n"], 3)]

    def gap(point) -> float:
        return min((point[0] - p[0]) ** 2 + (point[1] - p[1]) ** 2 for p in points if p is not point)

    return max(points, key=gap)


def rgb(colour: str) -> tuple[int, int, int]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_points_are_drawn_in_their_colours(open_page):
    page = open_tab(open_page)
    drawn = traces(page)
    assert {trace["type"] for trace in drawn} == {"scattergl"}
    assert sum(trace["n"] for trace in drawn) == int(page.get_attribute("#rc-scatter .frame", "data-points"))
    assert len({trace["colour"] for trace in drawn}) == len(drawn) == 8
    x, y, _ = lonely(page)
    clip = {"x": x - 2, "y": y - 2, "width": 4, "height": 4}
    from PIL import Image

    centre = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB").getpixel((2, 2))
    nearest = min(sum(abs(a - b) for a, b in zip(centre, rgb(t["colour"]), strict=True)) for t in drawn)
    # 90 % opaque on white
    assert nearest < 90
    assert "as the checkpoint has them" in page.inner_text("#rc-caption")
    assert page.locator("#rc-prototypes .rc-row").count() == 8


def test_divide_look_undo_and_keep(open_page, server: Server, digits: Path, tmp_path: Path):
    before = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in digits.iterdir()}
    page = open_tab(open_page)
    assert page.locator("#rc-undo").is_disabled()
    assert page.locator("#rc-save").is_disabled()
    page.locator("#rc-automatic input").uncheck()
    box = page.locator("#rc-k input[type=number]")
    page.wait_for_function("!document.querySelector('#rc-k input[type=number]').disabled")
    box.fill("3")
    box.press("Enter")
    press(page, "#rc-run")
    page.wait_for_selector("#rc-figures table")
    assert "2.00 → 3.00" in page.inner_text("#rc-figures .rc-mean")
    assert page.locator("#rc-figures tbody tr").count() == 5
    assert len(traces(page)) == 12
    assert page.locator("#rc-prototypes .rc-row").count() == 12

    # the same colours in legend, table and rows
    marks = page.locator("#rc-scatter .legend .mark").evaluate_all("all => all.map(e => e.style.background).sort()")
    for other in ("#rc-figures .rc-mark", "#rc-prototypes .rc-mark"):
        assert page.locator(other).evaluate_all("all => all.map(e => e.style.background).sort()") == marks

    # the pointer shows the picture's key, a press its panel
    x, y, point = lonely(page)
    page.mouse.move(x - 30, y - 30)
    page.mouse.move(x, y)
    page.wait_for_selector("#rc-scatter .card.on img")
    key = page.locator("#rc-scatter .card span").nth(1).inner_text()
    page.mouse.click(x, y)
    page.wait_for_selector("#rc-point .rc-point")
    assert key in page.inner_text("#rc-point")
    assert 1 <= page.locator("#rc-point .fg-strip img").count() <= 8
    assert isinstance(point, int)

    # the legend picks out a subclass
    page.locator("#rc-scatter .legend button[data-id]").first.click()
    assert sorted({trace["opacity"] for trace in traces(page) if trace["opacity"] is not None}) == [0.07, 0.9]
    page.get_by_role("button", name="Show all").click()
    assert {trace["opacity"] for trace in traces(page) if trace["opacity"] is not None} == {0.9}

    # what is downloaded parses and says the same
    with page.expect_download() as waiting:
        page.locator("#rc-csv").click()
    waiting.value.save_as(tmp_path / "a.csv")
    assert waiting.value.suggested_filename == f"{NAME}-subclasses.csv"
    rows = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8", newline="")))
    with page.expect_download() as waiting:
        page.locator("#rc-json").click()
    waiting.value.save_as(tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [row["key"] for row in rows] == [item["key"] for item in document["assignments"]]
    assert [int(row["subclass_id"]) for row in rows] == [item["subclass_id"] for item in document["assignments"]]
    with page.expect_download():
        page.locator("#rc-json").click()

    # one step back is the checkpoint's own division again
    press(page, "#rc-undo")
    page.wait_for_function("document.querySelectorAll('#rc-prototypes .rc-row').length === 8")
    assert page.locator("#rc-undo").is_disabled()
    assert page.locator("#rc-save").is_disabled()
    assert len(traces(page)) == 8

    # and what is kept becomes a version that the picker lists
    press(page, "#rc-run")
    page.wait_for_function("!document.querySelector('#rc-save').disabled")
    page.locator("#rc-save").click()
    page.wait_for_function("(name) => document.querySelector('#checkpoint input').value === name", arg=f"{NAME}-v2")
    page.wait_for_function("document.querySelectorAll('#rc-prototypes .rc-row').length === 12")
    page.locator("#checkpoint input").click()
    assert page.get_by_role("option", name=f"{NAME}-v2", exact=True).count() == 1
    saved = read_checkpoint(server.saved / f"{NAME}-v2")
    assert [entry["k"] for entry in saved.subclasses["classes"]] == [3] * 4
    assert {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in digits.iterdir()} == before


def test_chosen_classes_another_method_and_another_projection(open_page):
    page = open_tab(open_page)
    choose(page, "#rc-classes", "1")
    page.keyboard.press("Escape")
    choose(page, "#rc-method", "HDBSCAN")
    page.locator("#rc-automatic", has_text="HDBSCAN finds the number itself").wait_for()
    assert page.locator("#rc-automatic input").is_disabled()
    assert page.locator("#rc-k input[type=number]").is_disabled()
    press(page, "#rc-run")
    page.wait_for_selector("#rc-figures table")
    assert page.locator("#rc-figures tbody tr").count() == 1
    assert "HDBSCAN" in page.inner_text("#rc-caption")
    points = page.get_attribute("#rc-scatter .frame", "data-points")
    first = place(page, 0, 0)
    press(page, "#rc-projection label:has-text('t-SNE')")
    assert page.get_attribute("#rc-scatter .frame", "data-points") == points
    assert place(page, 0, 0) != first
    # another checkpoint starts afresh
    choose(page, "#checkpoint", "a-vit")
    page.wait_for_function("document.querySelector('#rc-scatter .frame').dataset.points === '9'")
    assert page.locator("#rc-undo").is_disabled()
    assert page.locator("#rc-figures table").count() == 0


def test_away_and_back_during_a_run_ends_with_one_whole_view(open_page):
    page = open_tab(open_page)
    points = page.get_attribute("#rc-scatter .frame", "data-points")
    for pause in (0, 150, 600):
        page.locator("#rc-run").click()
        choose(page, "#checkpoint", "a-vit")
        page.wait_for_timeout(pause)
        choose(page, "#checkpoint", NAME)
        page.wait_for_timeout(2500)
        page.wait_for_function(
            """(points) => {
              const frame = document.querySelector('#rc-scatter .frame');
              return frame.classList.contains('drawn') && frame.dataset.result && frame.dataset.points === points;
            }""",
            arg=points,
        )
        # picture, caption, table and rows tell of the same step
        ran = page.locator("#rc-figures table").count() == 1
        assert ("as the checkpoint has them" in page.inner_text("#rc-caption")) != ran
        assert page.locator("#rc-undo").is_enabled() == ran
        marks = page.locator("#rc-scatter .legend .mark").count()
        assert page.locator("#rc-prototypes .rc-row").count() == marks
        press(page, "#rc-run")
        page.wait_for_selector("#rc-figures table")


def test_a_bad_k_is_one_sentence_and_nothing_is_lost(open_page):
    page = open_tab(open_page)
    before = result(page)
    page.locator("#rc-automatic input").uncheck()
    page.wait_for_function("!document.querySelector('#rc-k input[type=number]').disabled")
    page.evaluate(
        """() => {
          const send = window.fetch;
          window.fetch = (url, options) => {
            if (String(url).includes('queue/join') && options.body.includes('"kmeans",false'))
              options = {...options, body: options.body.replace('"kmeans",false,3', '"kmeans",false,4000')};
            return send(url, options);
          };
        }"""
    )
    page.locator("#rc-run").click()
    page.get_by_text("K is 4000, but class").wait_for()
    assert result(page) == before
    assert page.get_attribute("#rc-scatter .frame", "class") == "frame drawn"


def test_hostile_presses_are_refused(open_page):
    page = open_tab(open_page)
    page.evaluate(
        """() => {
          const send = window.fetch;
          window.fetch = (url, options) => {
            if (String(url).includes('queue/join')) {
              const body = JSON.parse(options.body);
              if (body.event_data?.point !== undefined) body.event_data = window.hostile(body.event_data);
              options = {...options, body: JSON.stringify(body)};
            }
            return send(url, options);
          };
        }"""
    )
    x, y, _ = lonely(page)
    for change, sentence in (
        ("(own) => ({})", STALE),
        ("(own) => [own]", STALE),
        ("(own) => ({...own, result: 'unknown'})", STALE),
        ("(own) => ({...own, result: [own.result]})", STALE),
        ("(own) => ({...own, result: 'a'.repeat(100000)})", STALE),
        ("(own) => ({...own, point: 1e12})", "That point is not in the picture"),
        ("(own) => ({...own, point: -1})", "That point is not in the picture"),
        ("(own) => ({...own, point: Array(1000).fill(0)})", "That point is not in the picture"),
        ("(own) => ({...own, point: '<b>1</b>'})", "That point is not in the picture"),
    ):
        page.evaluate(f"() => {{ window.hostile = {change}; }}")
        page.mouse.click(x, y)
        page.get_by_text(sentence).first.wait_for()
        page.locator(".toast-close").first.click()
        page.wait_for_selector(".toast-close", state="detached")
    assert page.locator("#rc-point .rc-point").count() == 0
    page.evaluate("() => { window.hostile = (own) => own; }")
    page.mouse.click(x, y)
    page.wait_for_selector("#rc-point .rc-point")


def test_it_fits_every_screen(open_page):
    page = open_tab(open_page, scheme="dark")
    press(page, "#rc-run")
    page.wait_for_selector("#rc-figures table")
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        page.locator("#rc-scatter .frame").scroll_into_view_if_needed()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, size
        page.wait_for_function(
            """() => {
              const frame = document.querySelector('#rc-scatter .frame').getBoundingClientRect();
              const drawn = document.querySelector('#rc-scatter .plot svg').getBoundingClientRect();
              return Math.abs(frame.width - drawn.width) < 4 && Math.abs(frame.height - drawn.height) < 4;
            }"""
        )


def test_the_endpoint_divides_and_leaves_the_checkpoint(client: Client):
    own = client.predict(checkpoint=NAME, classes=["1", 3], k=3, seed=5, api_name="/recluster")
    assert own["settings"] == {"classes": ["1", "3"], "method": "kmeans", "k": 3, "pca": None, "seed": 5, "at_least": 1}
    assert [entry["after"]["k"] for entry in own["classes"]] == [3, 3]
    assert [entry["before"]["k"] for entry in own["classes"]] == [2, 2]
    assert len(set(own["pictures"]["subclass_id"])) == 6
    again = client.predict(checkpoint=NAME, classes=["1", 3], k=3, seed=5, api_name="/recluster")
    assert again == own
    everything = client.predict(checkpoint=NAME, method="gmm", pca=4, api_name="/recluster")
    assert len(everything["classes"]) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"checkpoint": "/etc"}, "There is no checkpoint /etc here"),
        ({"k": 0.5}, "k is a whole number"),
        ({"k": -1}, "k is a whole number"),
        ({"k": "x"}, "k is a whole number"),
        ({"k": 10**9}, "choose K from 1 to"),
        ({"pca": 65}, "choose 1 to 64"),
        ({"seed": -1}, "seed is a whole number from 0"),
        ({"classes": "1"}, "classes is a list"),
        ({"classes": [4]}, "There is no class 4"),
        ({"classes": ["1"] * 1000}, "classes is a list of at most 4"),
        ({"method": "magic"}, "choose one of kmeans, spherical, gmm, agglomerative, hdbscan"),
        ({"projection": "globe"}, "choose one of pca, tsne, umap"),
    ],
)
def test_bad_arguments_get_a_sentence(client: Client, arguments: dict, sentence: str):
    with pytest.raises(AppError, match=sentence):
        client.predict(**{"checkpoint": NAME, **arguments}, api_name="/recluster")


def test_stop_stands_in_for_the_button_while_it_works(open_page) -> None:
    page = open_tab(open_page)
    page.evaluate(
        """() => { window.seen = [];
        new MutationObserver(() => window.seen.push(!!document.querySelector('#rc-stop')?.checkVisibility()))
            .observe(document.body, {subtree: true, childList: true, attributes: true}); }"""
    )
    press(page, "#rc-run")
    page.locator("#rc-run").wait_for()
    page.locator("#rc-stop").wait_for(state="hidden")
    assert page.evaluate("window.seen.includes(true)")
