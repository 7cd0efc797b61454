"""A scatter of many points in the page: a Gradio component over the plotly.min.js of the plotly package.

Python sends coordinates and a subclass for each point; static/scatter.js draws them, one WebGL trace for each mark,
and reports clicks. What comes back from a browser is hostile until `read_point` has looked at it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from fgdemo.errors import UserError

STATIC = Path(__file__).parent / "static"

# Far apart in OKLab (at least 0.13), each with contrast above 2 on white and on near-black; neighbours farthest apart.
PALETTE = (
    *("#2981fb", "#f86111", "#04a322", "#c01085", "#865812", "#fb69de", "#1d97a2", "#4a46dc"),
    *("#e1a536", "#bb6c6f", "#047745", "#47b5fa", "#b858ea", "#07c7a4", "#2b6899", "#fa96a3"),
    *("#c21b0d", "#988e40", "#f8417d", "#8c25bb", "#bf9bfc", "#897abd", "#8fbe1e", "#864c79"),
)

# plotly's symbol, and the same shape cut out of a square box by CSS
SYMBOLS = {
    "circle": "circle(50%)",
    "diamond": "polygon(50% 0, 100% 50%, 50% 100%, 0 50%)",
    "square": "inset(8%)",
    "triangle-up": "polygon(50% 4%, 100% 92%, 0 92%)",
    "cross": "polygon(32% 0, 68% 0, 68% 32%, 100% 32%, 100% 68%, 68% 68%, 68% 100%, 32% 100%, 32% 68%, 0 68%, 0 32%, "
    "32% 32%)",
}
STYLES = len(PALETTE) * len(SYMBOLS)

_RESULT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
STALE = "The clusters changed or expired: run it again."


class Group(NamedTuple):
    """One subclass in the legend; `style` counts through the colours of the first symbol, then of the next."""

    id: int
    name: str
    class_name: str
    size: int
    style: int


def assign_styles(ids: Iterable[int], before: Mapping[int, int] | None = None) -> dict[int, int]:
    """A style for every subclass id: what it had before, else a free one, by preference id modulo the colours.

    Up to 24 ids get 24 colours; beyond, colours return with other symbols; beyond 120, styles repeat.
    """
    wanted = sorted(set(ids))
    before = before or {}
    styles: dict[int, int] = {}
    used: set[int] = set()
    for identity in wanted:
        style = before.get(identity)
        # an earlier style of a crowded picture gives way where a plain circle is enough now
        if style is not None and style not in used and (style < len(PALETTE) or len(wanted) > len(PALETTE)):
            styles[identity] = style
            used.add(style)
    for identity in wanted:
        if identity in styles:
            continue
        start = identity % len(PALETTE)
        rounds = (shape * len(PALETTE) for shape in range(len(SYMBOLS)))
        order = (first + (start + step) % len(PALETTE) for first in rounds for step in range(len(PALETTE)))
        styles[identity] = next((style for style in order if style not in used), identity % STYLES)
        used.add(styles[identity])
    return styles


def colour(style: int) -> str:
    return PALETTE[style % len(PALETTE)]


def symbol(style: int) -> str:
    return tuple(SYMBOLS)[style // len(PALETTE) % len(SYMBOLS)]


def mark_css(style: int) -> str:
    """Inline CSS that gives a small box the colour and shape of the points of a style."""
    return f"background:{colour(style)};clip-path:{SYMBOLS[symbol(style)]}"


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
        "x": _base64(xy[:, 0], "<f4"),
        "y": _base64(xy[:, 1], "<f4"),
        "code": _base64(codes, "<u4"),
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
        library = plotly_js()
        gr.set_static_paths([library])
        super().__init__(
            value=value,
            html_template=(STATIC / "scatter.html").read_text(encoding="utf-8"),
            css_template=(STATIC / "scatter.css").read_text(encoding="utf-8"),
            js_on_load=(STATIC / "scatter.js").read_text(encoding="utf-8"),
            server_functions=[_named(describe, "describe")],
            apply_default_css=False,
            library=library.as_posix(),
            **kwargs,
        )

    def postprocess(self, value: Any) -> Any:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}


def plotly_js() -> Path:
    """The plotly.min.js that the installed plotly package brings; plotly itself is not imported."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise UserError("The app draws with plotly, which is not installed: pip install plotly.")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(data: Any) -> Any:
        return function(data)

    call.__name__ = name
    return call


def _base64(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")
