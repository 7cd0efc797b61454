"""Components drawn by the plotly.min.js of the plotly package, which pages fetch from this server when they need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from fgdemo.html_page import plotly_js

STATIC = Path(__file__).parent / "static"


def chart(name: str) -> dict[str, Any]:
    """Arguments of a gr.HTML made of static/NAME.html, NAME.css, and NAME.js after plotly.js.

    Raises:
        UserError: plotly is not installed.
    """
    library = plotly_js()
    gr.set_static_paths([library])
    return {
        "html_template": _static(f"{name}.html"),
        "css_template": _static(f"{name}.css"),
        "js_on_load": _static("plotly.js") + _static(f"{name}.js"),
        "apply_default_css": False,
        "library": library.as_posix(),
    }


def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")
