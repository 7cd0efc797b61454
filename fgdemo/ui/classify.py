"""The Classify tab: a picture's classes, its subclass, its closest relatives."""

from __future__ import annotations

from typing import Any

import gradio as gr

from fgdemo.errors import UserError
from fgdemo.ui import render
from fgdemo.ui.examples import Example, examples
from fgdemo.ui.image_input import Argument, Choice, ImageInput, integer, read_picture
from fgdemo.ui.pictures import notice
from fgdemo.ui.session import MODEL_WORK, PRIVATE, App, quietly, reported

TOP = 5
_NOTHING = render.empty("No picture yet", "Choose a picture to see where it belongs, and its closest relatives.")
# The thumbnails are buttons, so that the keyboard reaches them; which one was pressed is all that is sent.
_PRESS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-index]');
  if (button) trigger('press', {index: Number(button.dataset.index)});
});
"""


def build(app: App, picker: gr.Dropdown, fetching: gr.HTML) -> ImageInput:
    """Lay the tab out; returns its picture, which the Explain tab shows too."""
    with gr.Row(equal_height=False, elem_classes="fg-columns"):
        with gr.Column(scale=5, min_width=300):
            picture = ImageInput(
                label="Picture",
                show_label=False,
                height=340,
                sources=["upload", "clipboard", "webcam"],
                buttons=["fullscreen"],
                elem_id="classify-picture",
                placeholder="Drop a picture here\nor click to choose one",
                alt_text="The picture to classify",
            )
            shelf = gr.HTML("", apply_default_css=False, js_on_load=_PRESS, elem_id="classify-examples")
        with gr.Column(scale=8, min_width=320):
            result = gr.HTML(_NOTHING, apply_default_css=False, elem_id="classify-result")

    @reported
    def show(path: str | None, name: str | None) -> str:
        if path is None:
            return _NOTHING
        classifier = app.classifier(name)
        prediction = classifier.predict([read_picture(path)], top=TOP)[0]
        return render.prediction_panel(classifier, prediction, app.pictures, notice(app, name))

    def example_shelf(name: str | None) -> str:
        return _shelf(_examples(app, name))

    @reported
    def pick(name: str | None, event: gr.EventData) -> Any:
        index = event._data.get("index")
        known = _examples(app, name)
        if not isinstance(index, int) or not 0 <= index < len(known):
            raise UserError("This example is no longer there; choose another.")
        return known[index].image

    work: dict[str, Any] = {"show_progress": "minimal", "trigger_mode": "always_last", **MODEL_WORK, **PRIVATE}
    gr.on([picture.change, picker.change], show, [picture, picker], result, **work)
    fetching.arrived(show, [picture, picker], result, **work)
    picker.change(quietly(example_shelf, ""), picker, shelf, show_progress="hidden", **PRIVATE)
    shelf.press(pick, picker, picture, show_progress="hidden", **PRIVATE)
    _endpoint(app)
    return picture


def _endpoint(app: App) -> None:
    @reported
    def classify(image: str, checkpoint: str | None = None, top: int | None = None) -> dict[str, Any]:
        """Classify one picture.

        Args:
            image: an uploaded file (JPEG, PNG, WebP, GIF, BMP, TIFF), at most 10 MB and 40 megapixels.
            checkpoint: a name of the model picker; the first one when not given.
            top: how many classes to return, 5 when not given.

        Returns:
            classes with probabilities, subclass with its distance and runner-up, prototypes, neighbours, novelty
            and box, as `Prediction.to_dict()` has them, and the checkpoint's name.
        """
        known = app.name(checkpoint)
        number = integer("top", top, TOP, least=1)
        prediction = app.classifier(known).predict([read_picture(image)], top=number)[0]
        return {"checkpoint": known, **prediction.to_dict()}

    gr.Button(visible=False).click(
        classify,
        [ImageInput(visible=False, label="image"), Choice(visible=False, label="checkpoint"), Argument("top")],
        gr.JSON(visible=False, label="prediction"),
        api_name="classify",
        **MODEL_WORK,
    )


def _examples(app: App, name: str | None) -> tuple[Example, ...]:
    return examples(app.classifier(name).config["fgdemo"]["training"].get("dataset"))


def _shelf(known: tuple[Example, ...]) -> str:
    from fgdemo.data.images import encode_thumbnail

    if not known:
        return ""
    buttons = "".join(
        f'<button type="button" data-index="{i}" aria-label="Example {i + 1}: {render.escape(example.caption)}" '
        f'title="{render.escape(example.caption)}">'
        f'<img src="{render.data_url(encode_thumbnail(example.image, 96, 80))}" alt=""></button>'
        for i, example in enumerate(known)
    )
    return f'<p class="fg-label">Or try one of these</p><div class="fg-shelf">{buttons}</div>'
