"""The Explain tab of a network that votes, as a person and as a program meet it."""

from __future__ import annotations

from pathlib import Path

from gradio_client import Client, handle_file
from PIL import Image
from tiny_checkpoint import picture

from .conftest import SIZES, Server, choose


def test_candidates_scales_and_a_second_picture(open_page, photo: Path, tmp_path: Path):
    page = open_page("d-voting")
    page.get_by_role("tab", name="Explain").click()
    page.locator("#explain-picture input[type=file]").first.set_input_files(photo)
    page.wait_for_selector("#explain-pool .ex-quotas")
    assert page.locator("#explain-pool .ex-quotas tbody tr").count() == 5
    assert page.locator("#explain-pool .ex-stages thead th").all_inner_texts() == ["Class", "All", "Refined", "Final"]

    def drawn() -> str:
        return page.get_attribute("#explain-drawn img", "src")

    def changed(before: str) -> str:
        page.wait_for_function("(old) => document.querySelector('#explain-drawn img').src !== old", arg=before)
        return drawn()

    votes = drawn()
    assert page.locator("#explain-scale").count() == 0
    choose(page, "#explain-what", "Votes, enhanced over scales")
    scores = changed(votes)
    choose(page, "#explain-scale", "4 patches apart")
    changed(scores)
    page.get_by_text("Votes that lie 4 patches apart").wait_for()
    choose(page, "#explain-what", "Candidates and refined picks")
    page.get_by_text("White rings mark the 4 survivors").wait_for()
    page.wait_for_selector("#explain-scale", state="detached")
    whole = drawn()
    page.locator("#explain-blocks button").nth(2).click()
    changed(whole)

    other = tmp_path / "other.png"
    picture(31, (80, 120)).save(other)
    page.locator("#explain-compare button").first.click()
    page.locator("#explain-second input[type=file]").first.set_input_files(other)
    page.wait_for_selector("#explain-drawn-2 img")
    assert page.locator("#explain-blocks button img").count() == 10
    sides = {}
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        sides[size] = [page.locator(name).bounding_box() for name in ("#explain-drawn", "#explain-drawn-2")]
    assert sides["desktop"][0]["x"] + sides["desktop"][0]["width"] <= sides["desktop"][1]["x"]
    assert sides["phone"][0]["y"] + sides["phone"][0]["height"] <= sides["phone"][1]["y"]

    # What only this network has goes with it.
    choose(page, "#checkpoint", "a-vit")
    page.wait_for_selector("#explain-pool .ex-quotas", state="detached")
    page.wait_for_selector("#explain-drawn-2", state="detached")
    assert page.locator("#explain-compare").count() == 0


def test_the_endpoint_draws_candidates(server: Server, photo: Path):
    client = Client(server.url, verbose=False)
    try:
        path, found = client.predict(
            handle_file(photo), checkpoint="d-voting", block=0, what="candidates", api_name="/explain"
        )
        with Image.open(path) as drawn:
            assert drawn.size == (512, round(80 * 512 / 120))
        assert len(found["shown"]["candidates"]) == found["quotas"][0]
        assert len(found["refined"]) == 4
        _, found = client.predict(
            handle_file(photo), checkpoint="d-voting", what="scores", scale=2, block=0, api_name="/explain"
        )
        assert found["shown"]["map"] == found["scale_scores"][0][1]
    finally:
        client.close()
