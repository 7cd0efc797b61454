"""The app as a person and as a program meet it: every tab, every endpoint, and input that is no good."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from support.commands import ROOT, environment
from tiny_checkpoint import picture

from .conftest import SIZES, Server, choose


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    connected = Client(server.url, verbose=False)
    yield connected
    connected.close()


def upload(page, tab: str, file: Path) -> None:
    page.locator(f"#{tab}-picture input[type=file]").first.set_input_files(file)


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def huge_png() -> bytes:
    """90 megapixels in a few kilobytes: the header, and no more pixels than it takes to look like a picture."""
    data = zlib.compress(bytes(9500 // 8 + 1), 9)
    header = struct.pack(">IIBBBBB", 9500, 9500, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


BAD_FILES = {
    "empty.png": b"",
    "text.png": b"this is no picture",
    "page.jpg": b"<html><body>no picture</body></html>",
    "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "cut.png": png(picture(0))[:2000],
    "huge.png": huge_png(),
    "line.png": png(Image.new("RGB", (3000, 1))),
}


def test_classify_shows_class_subclass_and_relatives(open_page, photo: Path):
    page = open_page("a-vit")
    assert "No picture yet" in page.inner_text("#classify-result")
    upload(page, "classify", photo)
    page.wait_for_selector("#classify-result .fg-result")
    assert page.locator("#classify-result .fg-bars li").count() == 3
    assert page.locator("#classify-result h2").inner_text() in ("apple", "moss", "sky")
    assert page.get_by_role("list", name="Nearest gallery pictures").locator("img[alt*='drawn/']").count() == 8
    assert page.locator("#classify-result .fg-notice").count() == 0
    choose(page, "#checkpoint", "c-strict")
    page.wait_for_selector("#classify-result .fg-notice")
    assert "Unlike anything in the gallery" in page.inner_text("#classify-result")


def test_examples_are_there_where_the_data_travels_with_the_code(open_page):
    page = open_page("b-cnn")
    page.wait_for_selector("#classify-examples button")
    page.locator("#classify-examples button").nth(3).press("Enter")
    page.wait_for_selector("#classify-result .fg-result")
    choose(page, "#checkpoint", "a-vit")
    page.wait_for_selector("#classify-examples button", state="detached")


def test_explain_follows_the_picture_and_its_controls(open_page, photo: Path):
    page = open_page("a-vit")
    upload(page, "classify", photo)
    page.wait_for_selector("#classify-result .fg-result")
    open_tab(page, "Explain")
    page.wait_for_selector("#explain-drawn img")
    blocks = page.locator("#explain-blocks button")
    assert blocks.count() > 1

    def drawn() -> str:
        return page.get_attribute("#explain-drawn img", "src")

    def changed(before: str) -> str:
        page.wait_for_function("(old) => document.querySelector('#explain-drawn img').src !== old", arg=before)
        return drawn()

    whole = drawn()
    blocks.nth(1).click()
    second = changed(whole)
    page.wait_for_selector("#explain-blocks button[data-block='1'][aria-pressed=true]")
    choose(page, "#explain-what", "Attention")
    attention = changed(second)
    page.locator("#explain-opacity input[type=number]").fill("0.2")
    page.locator("#explain-opacity input[type=number]").press("Enter")
    page.locator("#explain-opacity input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    changed(attention)


def test_explain_shows_a_class_activation_map_for_a_cnn(open_page, photo: Path):
    page = open_page("b-cnn")
    open_tab(page, "Explain")
    assert "No picture yet" in page.inner_text("#explain-caption")
    upload(page, "explain", photo)
    page.wait_for_selector("#explain-drawn img")
    assert page.locator("#explain-blocks button").count() == 0
    page.wait_for_selector("#explain-what", state="detached")
    page.locator("#explain-class input").click()
    assert page.get_by_role("option").count() == 3
    before = page.get_attribute("#explain-drawn img", "src")
    page.get_by_role("option").nth(1).click()
    page.wait_for_function("(old) => document.querySelector('#explain-drawn img').src !== old", arg=before)
    # One picture for both tabs.
    open_tab(page, "Classify")
    page.wait_for_selector("#classify-result .fg-result")


def test_prototypes_are_renamed_in_a_new_version(open_page, server: Server):
    before = contents(server.checkpoints)
    hostile = """<img src=x onerror="document.title='taken'"> ${1+1} {{this}} <b>"""
    page = open_page("a-vit")
    open_tab(page, "Prototypes")
    page.wait_for_selector("#prototypes-rows article")
    page.locator("#prototypes-save").click()
    page.get_by_text("No name was changed").wait_for()
    boxes = page.locator("#prototypes-rows input")
    assert sorted(boxes.nth(i).input_value() for i in range(boxes.count())) == ["kind 3", "kind 8"]
    boxes.first.fill(hostile)
    # A look at another class loses nothing.
    choose(page, "#prototypes-class", "moss")
    page.wait_for_function("document.querySelectorAll('#prototypes-rows article').length === 1")
    choose(page, "#prototypes-class", "apple")
    page.wait_for_function("document.querySelectorAll('#prototypes-rows article').length === 2")
    assert boxes.first.input_value() == hostile
    page.locator("#prototypes-save").click()
    page.wait_for_function("document.querySelector('#checkpoint input').value !== 'a-vit'")
    new = page.locator("#checkpoint input").input_value()
    assert new.startswith("a-vit-v")
    page.wait_for_selector(f"#prototypes-rows [data-checkpoint='{new}'] article")
    assert page.locator(f"#prototypes-rows [data-checkpoint='{new}'] input").first.input_value() == hostile
    assert page.title() == "fgdemo"
    assert contents(server.checkpoints) == before
    written = json.loads((server.saved / new / "subclasses.json").read_text(encoding="utf-8"))
    assert hostile in [m["name"] for entry in written["classes"] for m in entry["subclasses"]]


def test_a_bad_upload_is_told_and_the_next_one_works(open_page, photo: Path, tmp_path: Path):
    page = open_page("a-vit")
    bad = tmp_path / "bad.png"
    bad.write_bytes(BAD_FILES["cut.png"])
    upload(page, "classify", bad)
    page.get_by_text("Not a readable image").first.wait_for()
    page.get_by_label("Clear").or_(page.get_by_label("Remove Image")).first.click()
    upload(page, "classify", photo)
    page.wait_for_selector("#classify-result .fg-result")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(open_page, photo: Path, scheme: str):
    page = open_page("a-vit", scheme=scheme)
    upload(page, "classify", photo)
    page.wait_for_selector("#classify-result .fg-result")
    for name, ready in (
        ("Classify", "#classify-result .fg-result"),
        ("Explain", "#explain-drawn img"),
        ("Prototypes", "#prototypes-rows article"),
    ):
        page.set_viewport_size({"width": 1440, "height": 900})
        open_tab(page, name)
        page.wait_for_selector(ready)
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, (name, size)


def test_the_endpoints_are_the_documented_ones(client: Client):
    info = client.view_api(return_format="dict", print_info=False)
    assert set(info["named_endpoints"]) >= {"/classify", "/explain", "/prototypes"}
    assert info["unnamed_endpoints"] == {}
    assert set(info["named_endpoints"]) <= {"/classify", "/explain", "/prototypes", "/recluster"}
    names = [p["parameter_name"] for p in info["named_endpoints"]["/classify"]["parameters"]]
    assert names == ["image", "checkpoint", "top"]


def test_classify_endpoint(client: Client, photo: Path):
    result = client.predict(handle_file(photo), checkpoint="b-cnn", top=2, api_name="/classify")
    assert result["checkpoint"] == "b-cnn"
    assert len(result["classes"]) == 2
    assert {"superclass", "subclass", "prototypes", "neighbours", "novelty", "box"} <= set(result)
    first = client.predict(handle_file(photo), api_name="/classify")
    assert first["checkpoint"] == "a-vit"


def test_explain_endpoint(client: Client, photo: Path):
    path, result = client.predict(handle_file(photo), checkpoint="a-vit", block=1, head=0, api_name="/explain")
    with Image.open(path) as drawn:
        assert drawn.size == (512, round(80 * 512 / 120))
    assert (result["kind"], result["checkpoint"]) == ("votes", "a-vit")
    shown = result["shown"]
    assert (shown["block"], shown["head"], shown["what"]) == (1, 0, "votes")
    assert sum(map(sum, shown["map"])) == result["votes_per_head"]
    _, cnn = client.predict(handle_file(photo), checkpoint="b-cnn", class_id=2, api_name="/explain")
    assert (cnn["kind"], cnn["target"]) == ("activation", 2)


def test_prototypes_endpoint(client: Client):
    result = client.predict("apple", checkpoint="b-cnn", n=1, api_name="/prototypes")
    assert (result["class_id"], result["class"]) == (0, "apple")
    assert sorted(s["id"] for s in result["subclasses"]) == [3, 8]
    (central,) = result["subclasses"][0]["prototypes"]
    assert central["key"].startswith("drawn/")
    assert central["thumbnail"].startswith("data:image/webp;base64,")
    assert client.predict(1, checkpoint="b-cnn", n=0, api_name="/prototypes")["class"] == "moss"


@pytest.mark.parametrize("name", sorted(BAD_FILES))
def test_unreadable_pictures_get_a_sentence(client: Client, photo: Path, tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(BAD_FILES[name])
    for endpoint in ("/classify", "/explain"):
        with pytest.raises(AppError, match="Not a readable image") as refused:
            client.predict(handle_file(path), api_name=endpoint)
        assert "/" not in str(refused.value)
        assert "Traceback" not in str(refused.value)
    assert client.predict(handle_file(photo), api_name="/classify")["classes"]


def test_a_picture_inside_the_request_is_refused(server: Server):
    """It would pass by the limit on the size of uploads."""
    url = "data:image/png;base64," + base64.b64encode(png(picture(0))).decode()
    assert "Upload the picture as a file" in call_raw(server, {"path": None, "url": url})


@pytest.mark.parametrize("path", ["/etc/passwd", str(ROOT / "README.md"), "../../etc/passwd"])
def test_files_of_the_server_are_not_read(server: Server, path: str):
    assert "event: error" in call_raw(server, {"path": path})


def test_an_upload_above_the_limit_is_refused(server: Server):
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n'
    body = head + bytes(10_500_000) + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{server.url}gradio_api/upload", body, kind), timeout=60)
    assert refused.value.code == 413


def call_raw(server: Server, image: dict) -> str:
    """The stream of events that /classify answers to a request made by hand."""
    body = json.dumps({"data": [{**image, "meta": {"_type": "gradio.FileData"}}, None, None]})
    call = f"{server.url}gradio_api/call/classify"
    request = urllib.request.Request(call, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{call}/{event}", timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.parametrize(
    ("endpoint", "arguments", "sentence"),
    [
        ("/classify", {"checkpoint": "/etc"}, "There is no checkpoint /etc here"),
        ("/classify", {"checkpoint": "hf://someone/something"}, "There is no checkpoint"),
        ("/classify", {"checkpoint": ["a-vit"]}, "checkpoint takes one text"),
        ("/classify", {"top": 0}, "top is a whole number of at least 1, not 0"),
        ("/classify", {"top": "x"}, "top is a whole number"),
        ("/classify", {"top": 2.5}, "top is a whole number"),
        ("/explain", {"checkpoint": "a-vit", "block": 99}, "The block must be 0 to"),
        ("/explain", {"checkpoint": "a-vit", "head": [0]}, "The head must be 0 to"),
        ("/explain", {"checkpoint": "a-vit", "what": "dreams"}, "not 'dreams'"),
        ("/explain", {"checkpoint": "a-vit", "opacity": 2}, "Opacity goes from 0 to 1"),
        ("/explain", {"checkpoint": "a-vit", "opacity": "x"}, "Opacity is a number"),
        ("/explain", {"checkpoint": "b-cnn", "class_id": 99}, "There are classes 0 to 2"),
        ("/explain", {"checkpoint": "b-cnn", "class_id": {}}, "A class is a number"),
        ("/prototypes", {"class_name": "nobody"}, "There is no class 'nobody'"),
        ("/prototypes", {"class_name": -1}, "There is no class -1"),
        ("/prototypes", {"class_name": ["apple"]}, "There is no such class"),
        ("/prototypes", {"class_name": 0, "n": 10**9}, "n is a whole number from 0 to 100"),
    ],
)
def test_bad_arguments_get_a_sentence(client: Client, photo: Path, endpoint: str, arguments: dict, sentence: str):
    picture_argument = {} if endpoint == "/prototypes" else {"image": handle_file(photo)}
    with pytest.raises(AppError, match=sentence):
        client.predict(**picture_argument, **arguments, api_name=endpoint)


def test_no_picture_gets_a_sentence(client: Client):
    with pytest.raises(AppError, match="Choose a picture first"):
        client.predict(None, api_name="/classify")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--checkpoints", "no-such-folder"], "The folder no-such-folder does not exist"),
        (["--checkpoint", "./no-such-checkpoint"], "The checkpoint folder ./no-such-checkpoint does not exist"),
        (["--port", "99999"], "a port is a number from 1 to 65535"),
    ],
)
def test_a_bad_command_line_is_refused_before_serving(arguments: list[str], sentence: str):
    command = [sys.executable, "app.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
