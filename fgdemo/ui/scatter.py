"""A scatter of many points in the page: a Gradio component over the plotly.min.js of the plotly package.

Python sends coordinates and a subclass for each point; static/scatter.js draws them, one WebGL trace for each mark,
and reports clicks. What comes back from a browser is hostile until `read_point` has looked at it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from fgdemo.errors import UserError
from fgdemo.html_page import base64_array
from fgdemo.palette import colour, mark_css, symbol
from fgdemo.ui.chart import chart

_RESULT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
STALE = "The clusters changed or expired: run it again."


class Group(NamedTuple):
    """One subclass in the legend, in a style of `assign_styles`."""

    id: int
    name: str
    class_name: str
    size: int
    style: int


def payload(
    name: str, result: str, xy: np.ndarray, codes: np.ndarray, groups: Sequence[Group], *, frame: str
) -> dict[str, Any]:
    """What the component draws.

    Args:
        name: what is drawn, as in `pending`: a late picture of something else than was last waited for is left out.
        result: id of the result that points are looked up in when they come back.
        xy: (N, 2) coordinates.
        codes: (N,) position in `groups` of every point.
        groups: the legend.
        frame: names the coordinates; the page keeps its zoom while this stays the same.

    Raises:
        ValueError: arrays that do not fit each other, coordinates that are not finite.
    """
    xy, codes = np.asarray(xy, np.float32), np.asarray(codes)
    if xy.shape != (len(codes), 2) or not np.isfinite(xy).all():
        raise ValueError(f"finite coordinates of shape ({len(codes)}, 2) are expected, not {xy.shape}")
    if len(codes) and not 0 <= codes.min() <= codes.max() < len(groups):
        raise ValueError(f"codes must lie between 0 and {len(groups) - 1}")
    return {
        "name": name,
        "result": result,
        "frame": frame,
        "x": base64_array(xy[:, 0], "<f4"),
        "y": base64_array(xy[:, 1], "<f4"),
        "code": base64_array(codes, "<u4"),
        "groups": [
            {
                "id": group.id,
                "name": group.name,
                "class": group.class_name,
                "size": group.size,
                "style": group.style,
                "colour": colour(group.style),
                "symbol": symbol(group.style),
                "mark": mark_css(group.style),
            }
            for group in groups
        ],
    }


def pending(name: str) -> dict[str, Any]:
    """A value under which the component waits until it is seen, then asks for its points by the event `shown`.

    Merged into a `payload`, it says that this picture is the one to wait for.
    """
    return {"pending": name}


def read_result(value: Any) -> str:
    """The result id in what a browser sent.

    Raises:
        UserError: it is not one.
    """
    result = value.get("result") if isinstance(value, dict) else None
    if not isinstance(result, str) or not _RESULT_ID.fullmatch(result):
        raise UserError(STALE)
    return result


def read_point(value: Any, count: int) -> int:
    """The point in what a browser sent, of a picture of `count` points.

    Raises:
        UserError: anything but an integer from 0 to count - 1.
    """
    point = value.get("point") if isinstance(value, dict) else None
    if isinstance(point, bool) or not isinstance(point, int) or not 0 <= point < count:
        raise UserError(f"That point is not in the picture, which has {count} points; click one of them.")
    return point


class Scatter(gr.HTML):
    """Points coloured by group, with a legend that picks out groups and a card for the point under the pointer.

    Its value is a `payload`, `pending`, or None. Events: `shown` when the component becomes visible while pending,
    `point_click` with {"result", "point"}.

    Args:
        describe: given what the browser says about the hovered point (hostile), its card as
            {"key": str, "picture": data URL or None}, or None. It must not raise.
    """

    def __init__(self, value: Any = None, *, describe: Callable[[Any], dict[str, Any] | None], **kwargs: Any) -> None:
        super().__init__(value=value, server_functions=[_named(describe, "describe")], **chart("scatter"), **kwargs)

    def postprocess(self, value: Any) -> Any:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(data: Any) -> Any:
        return function(data)

    call.__name__ = name
    return call
