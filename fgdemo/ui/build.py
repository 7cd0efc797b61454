"""The page: header, checkpoint picker, tabs; and how it is served."""

from __future__ import annotations

from typing import Any

import gradio as gr

from fgdemo.errors import UserError
from fgdemo.ui import classify, explain, pictures, prototypes, recluster, render
from fgdemo.ui.image_input import Choice
from fgdemo.ui.session import PRIVATE, App
from fgdemo.ui.theme import STYLE, theme

_HEADER = """
<div class="fg-brand"><h1>fgdemo</h1>
<p>Classify look-alike things, and see the variation inside each class.</p></div>
"""
_CACHE_S = 3600
_WAITING = 32


def build(app: App) -> gr.Blocks:
    """The whole interface over the checkpoints of ``app``; serve it with ``launch(**launch_options())``."""
    with gr.Blocks(title="fgdemo", analytics_enabled=False, delete_cache=(_CACHE_S, _CACHE_S)) as page:
        with gr.Row(elem_classes="fg-header", equal_height=True):
            gr.HTML(_HEADER, apply_default_css=False, scale=3, min_width=260)
            picker = Choice(label="Checkpoint", scale=2, min_width=260, elem_id="checkpoint", filterable=False)
        facts = gr.HTML('<p class="fg-facts"><span>Loading…</span></p>', apply_default_css=False, elem_id="facts")
        fetching = pictures.build(app, picker)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Classify", id="classify"):
                picture = classify.build(app, picker, fetching)
            with gr.Tab("Explain", id="explain") as explain_tab:
                explain.build(app, picker, picture, explain_tab)
            with gr.Tab("Prototypes", id="prototypes"):
                prototypes.build(app, picker, fetching)
            with gr.Tab("Re-cluster", id="recluster"):
                recluster.build(app, picker, fetching)

        def describe(name: str | None) -> str:
            try:
                return render.summary(app.classifier(name))
            except UserError as error:
                return render.message("This checkpoint cannot be used", str(error))

        def offer() -> tuple[Any, Any]:
            try:
                app.name(None)
            except UserError as error:
                return gr.skip(), render.message("No checkpoint", str(error))
            return app.picker_update(), gr.skip()

        picker.change(describe, picker, facts, show_progress="hidden", **PRIVATE)
        page.load(offer, None, [picker, facts], show_progress="hidden", **PRIVATE)
    page.queue(max_size=_WAITING)
    return page


def launch_options() -> dict[str, Any]:
    """What ``Blocks.launch`` needs to show this page and to serve nothing but it."""
    return {
        "theme": theme(),
        "css_paths": STYLE,
        "max_file_size": "10mb",
        "allowed_paths": [],
        "strict_cors": True,
        "show_error": False,
        "ssr_mode": False,
        "mcp_server": False,
        "footer_links": ["api"],
    }
