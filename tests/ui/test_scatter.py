"""The scatter's payload, its colours, and what a hostile browser may send back."""

from __future__ import annotations

import base64
import json

import gradio as gr
import numpy as np
import pytest

from fgdemo.errors import UserError
from fgdemo.html_page import plotly_js
from fgdemo.palette import PALETTE, STYLES, assign_styles, colour, mark_css, symbol
from fgdemo.ui.chart import STATIC
from fgdemo.ui.scatter import Group, Scatter, payload, pending, read_point, read_result


def oklab(colours: tuple[str, ...]) -> np.ndarray:
    srgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    lms = np.cbrt(linear @ np.array([*to_lms, [0.0883024619, 0.2817188376, 0.6299787005]]).T)
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    return lms @ np.array([*to_lab, [0.0259040371, 0.7827717662, -0.8086757660]]).T


def luminance(colours: tuple[str, ...]) -> np.ndarray:
    srgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def group(identity: int, name: str = "1", class_name: str = "rose") -> Group:
    return Group(identity, name, class_name, 3, identity % STYLES)


def decoded(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_colours_are_far_apart_and_visible_on_both_themes() -> None:
    lab = oklab(PALETTE)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2) + np.eye(len(lab))
    assert distance.min() > 0.125
    light = luminance(PALETTE)
    assert (1.05 / (light + 0.05)).min() > 2
    assert ((light + 0.05) / (luminance(("#1d1c1a",)) + 0.05)).min() > 2


def test_styles_are_distinct_as_far_as_there_are_any() -> None:
    for count in (1, 24, 25, STYLES):
        ids = range(1000, 1000 + 7 * count, 7)
        styles = assign_styles(ids)
        assert set(styles) == set(ids)
        looks = {(colour(style), symbol(style)) for style in styles.values()}
        assert len(looks) == count
        if count <= len(PALETTE):
            assert {symbol(style) for style in styles.values()} == {"circle"}
    assert set(assign_styles(range(STYLES + 9)).values()) == set(range(STYLES))


def test_styles_stay_with_their_ids() -> None:
    first = assign_styles([3, 27, 51])
    assert first == {3: 3, 27: 4, 51: 5}
    assert assign_styles([51, 75, 27], first) == {27: 4, 51: 5, 75: 3}


def test_crowded_styles_give_way_to_circles() -> None:
    crowded = assign_styles(range(30))
    assert {symbol(crowded[i]) for i in range(24, 30)} == {"diamond"}
    assert {symbol(style) for style in assign_styles([25, 26], crowded).values()} == {"circle"}


def test_payload_carries_the_arrays_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    xy = rng.normal(size=(1000, 2)).astype(np.float32)
    codes = rng.integers(0, 3, 1000)
    value = payload("digits", "abc", xy, codes, [group(0), group(5), group(9)], frame="f")
    np.testing.assert_array_equal(decoded(value["x"], "<f4"), xy[:, 0])
    np.testing.assert_array_equal(decoded(value["y"], "<f4"), xy[:, 1])
    np.testing.assert_array_equal(decoded(value["code"], "<u4"), codes)
    assert [g["id"] for g in value["groups"]] == [0, 5, 9]
    assert value["result"] == "abc"
    assert json.loads(json.dumps(value)) == value


def test_a_hundred_thousand_points_are_small() -> None:
    value = payload("digits", "a", np.zeros((100_000, 2)), np.zeros(100_000, int), [group(0)], frame="f")
    assert len(json.dumps(value)) < 1_700_000


def test_payload_takes_slices_and_other_byte_orders() -> None:
    xy = np.arange(12, dtype=">f8").reshape(6, 2)[::2]
    value = payload("digits", "a", xy, np.array([0, 1, 0], ">i2"), [group(0), group(1)], frame="f")
    np.testing.assert_array_equal(decoded(value["x"], "<f4"), [0, 4, 8])
    np.testing.assert_array_equal(decoded(value["code"], "<u4"), [0, 1, 0])


@pytest.mark.parametrize(
    ("xy", "codes"),
    [
        (np.zeros((3, 2)), np.zeros(2, int)),
        (np.zeros((3, 3)), np.zeros(3, int)),
        (np.array([[0, np.nan]]), np.zeros(1, int)),
        (np.array([[np.inf, 0]]), np.zeros(1, int)),
        (np.zeros((1, 2)), np.array([1])),
        (np.zeros((1, 2)), np.array([-1])),
    ],
)
def test_payload_refuses_what_cannot_be_drawn(xy: np.ndarray, codes: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"(expected|between)"):
        payload("digits", "a", xy, codes, [group(0)], frame="f")


def test_names_travel_as_data_and_the_page_never_reads_them_as_html() -> None:
    name = '"><script>alert(1)</script>${1}{{x}}'
    value = payload("digits", "a", np.zeros((1, 2)), np.zeros(1, int), [group(0, name, name)], frame="f")
    assert value["groups"][0]["name"] == value["groups"][0]["class"] == name
    script = "".join((STATIC / name).read_text(encoding="utf-8") for name in ("plotly.js", "scatter.js"))
    assert not [word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write") if word in script]
    assert "${" not in (STATIC / "scatter.html").read_text(encoding="utf-8")


def test_marks_hold_no_text_from_outside() -> None:
    for style in range(STYLES):
        assert mark_css(style).startswith(f"background:{PALETTE[style % 24]};clip-path:")
        assert not set('<>"&') & set(mark_css(style))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "abc",
        7,
        {},
        {"result": None},
        {"result": 5},
        {"result": ["abc"]},
        {"result": {"a": 1}},
        {"result": ""},
        {"result": "a" * 65},
        {"result": "a" * 10_000_000},
        {"result": "../../etc/passwd"},
        {"result": "abc\n"},
        {"result": "é"},
    ],
)
def test_a_result_id_is_short_and_plain(value: object) -> None:
    with pytest.raises(UserError, match=r"^The clusters changed or expired: run it again\.$"):
        read_result(value)


def test_a_true_result_id_is_read() -> None:
    assert read_result({"result": "A-b_9", "point": 3}) == "A-b_9"


@pytest.mark.parametrize(
    "point",
    [None, -1, 5, 10**30, 2.0, 1.5, float("nan"), True, "1", [1], [0] * 1_000_000, {"a": 1}],
)
def test_a_point_is_an_integer_in_range(point: object) -> None:
    with pytest.raises(UserError, match="5 points"):
        read_point({"point": point}, 5)
    with pytest.raises(UserError, match="5 points"):
        read_point(point, 5)


def test_true_points_are_read() -> None:
    assert [read_point({"point": i}, 5) for i in (0, 4)] == [0, 4]


def test_the_component_serves_the_packages_own_library_and_hears_its_events() -> None:
    library = plotly_js()
    assert library.is_file()
    assert "plotly.js v" in library.read_bytes()[:200].decode()
    with gr.Blocks():
        scatter = Scatter(pending("digits"), describe=lambda point: {"echo": point})
        assert scatter.get_block_name() == "html"
        scatter.point_click(lambda: None)
        scatter.shown(lambda: None)
        with pytest.raises(AttributeError):
            scatter.no_such_event(lambda: None)
    config = scatter.get_config()
    assert config["value"] == {"pending": "digits"}
    assert config["props"]["library"] == library.as_posix()
    assert scatter.describe({"point": 1}) == {"echo": {"point": 1}}
    assert "describe" in [function.__name__ for function in scatter.server_fns]


def test_the_picture_never_offers_to_send_data_anywhere() -> None:
    script = "".join((STATIC / name).read_text(encoding="utf-8") for name in ("plotly.js", "scatter.js"))
    assert "showSendToCloud: false" in script
    assert "plotlyServerURL: ''" in script
    assert "http://" not in script
    assert "https://" not in script
