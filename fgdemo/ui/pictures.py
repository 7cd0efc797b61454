"""What is said where pictures would stand that a checkpoint does not carry, and how a person fetches them there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from fgdemo.errors import UserError
from fgdemo.fetch import SOURCES, Source
from fgdemo.ui.render import escape
from fgdemo.ui.session import PRIVATE, App

_WATCHING = 8
# One component serves the buttons of all notices on the page, which come and go inside what the tabs show.
_LISTEN = """
const notices = (part) => document.querySelectorAll('.fg-absent ' + part);
document.addEventListener('click', (event) => {
  if (event.target.closest('.fg-absent button')) trigger('fetch');
});
watch('value', () => {
  if (!props.value) return;
  const { text, busy, arrived } = props.value;
  for (const button of notices('button')) button.disabled = busy;
  for (const status of notices('[role=status]')) status.textContent = text;
  if (arrived) trigger('arrived');
});
"""


def build(app: App, picker: gr.Dropdown) -> gr.HTML:
    """Lay out the invisible part; its event ``arrived`` tells the tabs that there are pictures now."""
    fetching = gr.HTML(html_template="", js_on_load=_LISTEN, apply_default_css=False, visible="hidden")

    def fetch(name: str | None) -> Iterator[dict[str, Any]]:
        try:
            for arrived in _fetch(app, name):
                yield {"text": arrived, "busy": True, "arrived": False}
        except UserError as error:
            yield {"text": str(error), "busy": False, "arrived": False}
        else:
            yield {"text": "", "busy": False, "arrived": True}

    # Several at once: whoever presses a button while a data set is under way sees how far it is.
    fetching.fetch(fetch, picker, fetching, show_progress="hidden", concurrency_limit=_WATCHING, **PRIVATE)
    return fetching


def notice(app: App, name: str | None) -> str:
    """Why there are no pictures of this checkpoint and how to have them; empty where there are some."""
    key = app.pictures.absent(app.classifier(name).gallery)
    if key is None:
        return ""
    training = app.classifier(name).config["fgdemo"]["training"]
    licence = training.get("licence")
    reason = f" {escape(licence)}" if isinstance(licence, str) else ""
    top, deeper, _ = key.partition("/")
    how = f"start the app with <code>--data-root DIR</code>, the folder that holds <code>{escape(top + deeper)}</code>"
    if app.data_roots:
        how += f" (none of those given holds <code>{escape(key)}</code>)"
    source = _source(training)
    if source is None:
        button = ""
    elif app.fetcher is None:
        how += f" after <code>torchvision.datasets.{source.dataset}(DIR, download=True)</code>"
        button = ""
    else:
        how += ", or have torchvision download them"
        button = (
            f'<p><button type="button">Fetch {source.size / 1e6:,.0f} MB</button>'
            '<span class="fg-hint" role="status"></span></p>'
        )
    return (
        '<div class="fg-absent"><p class="fg-hint">The pictures are not part of this checkpoint.'
        f"{reason} To see them, {how}.</p>{button}</div>"
    )


def _fetch(app: App, name: str | None) -> Iterator[str]:
    """Fetch the data set of a checkpoint; yields how far it is.

    Raises:
        UserError: this server fetches nothing, or what `Fetcher.fetch` raises, or what came is something else.
    """
    if app.fetcher is None:
        raise UserError("This server fetches no data sets: start the app with --data-root DIR, the folder of a copy.")
    classifier = app.classifier(name)
    dataset = str(classifier.config["fgdemo"]["training"].get("dataset"))
    yield f"{dataset}: starting"
    for arrived in app.fetcher.fetch(dataset):
        total = SOURCES[dataset].size
        done = min(arrived, total)
        yield f"{dataset}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if done < total else f"{dataset}: unpacking"
    key = app.pictures.absent(classifier.gallery)
    if key is not None:
        folder = app.fetcher.folder / dataset
        raise UserError(f"{folder} has no {key}: move it away, then fetch the data set again.")


def _source(training: dict[str, Any]) -> Source | None:
    dataset = training.get("dataset")
    return SOURCES.get(dataset) if isinstance(dataset, str) else None
