"""The Explain tab: where the attention heads look, or what the class activation map of a CNN shows."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr
from PIL import Image

from fgdemo.errors import UserError
from fgdemo.terms import terms
from fgdemo.ui import render
from fgdemo.ui.image_input import Argument, Choice, ImageInput, read_picture
from fgdemo.ui.session import MODEL_WORK, PRIVATE, App, quietly, reported

if TYPE_CHECKING:
    from fgdemo.explain.explanation import Explanation
    from fgdemo.prediction import Prediction

ALL = "all"
OPACITY = 0.7
TOP = 5
# Longer side of what is drawn: a map on a tiny picture needs room, and a large one gains nothing.
_SMALLEST, _LARGEST = 512, 1024
_TILE = 160
_VIEWS = [("Votes of the heads", "votes"), ("Votes, enhanced over scales", "scores"), ("Attention", "attention")]
_UNITS = {
    "votes": "votes of the heads",
    "scores": "enhanced votes",
    "attention": "share of attention",
    "activation": "contribution to the class",
    "likeness": "contribution to the likeness",
}
_HINTS = {
    "votes": "Every head votes for the {k} patches that the class token attends to most; the map counts the votes.",
    "scores": "Votes that lie together at one of several scales strengthen each other.",
    "attention": "Where the class token's attention goes, as shares among the patches.",
    "activation": "What each place adds to the evidence for the chosen class.",
    "likeness": "What each place adds to the likeness to the nearest gallery pictures.",
}
_EMPTY = render.empty("No picture yet", "Choose a picture here or on the Classify tab to see what its class rests on.")
_PRESS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-block]');
  if (button) trigger('press', {block: button.dataset.block});
});
"""


class _Explained(NamedTuple):
    """A picture at the size it is drawn, the part of it that the network saw, and what was found."""

    image: Image.Image
    box: tuple[float, float, float, float]
    prediction: Prediction
    explanation: Explanation


def build(app: App, picker: gr.Dropdown, picture: ImageInput, tab: gr.Tab) -> None:
    """Lay the tab out; it opens with the picture of the Classify tab."""
    with gr.Row(equal_height=False, elem_classes="fg-columns"):
        with gr.Column(scale=5, min_width=300):
            mine = ImageInput(
                label="Picture",
                show_label=False,
                height=260,
                sources=["upload", "clipboard", "webcam"],
                buttons=[],
                elem_id="explain-picture",
                placeholder="Drop a picture here\nor click to choose one",
                alt_text="The picture to explain",
            )
            what = Choice(choices=_VIEWS, value="votes", label="Show", filterable=False, elem_id="explain-what")
            with gr.Row():
                block = Choice(choices=[ALL], value=ALL, label="Block", filterable=False, min_width=120)
                head = Choice(choices=[ALL], value=ALL, label="Head", filterable=False, min_width=120)
            target = Choice(choices=[], label="Class", filterable=False, visible=False, elem_id="explain-class")
            opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity", elem_id="explain-opacity")
        with gr.Column(scale=8, min_width=320):
            caption = gr.HTML(_EMPTY, apply_default_css=False, elem_id="explain-caption")
            drawn = gr.Image(
                visible=False,
                interactive=False,
                show_label=False,
                format="png",
                buttons=["download", "fullscreen"],
                height=460,
                elem_id="explain-drawn",
                alt_text="The picture with the map drawn over it",
            )
            scale = gr.HTML("", apply_default_css=False)
            blocks = gr.HTML("", apply_default_css=False, js_on_load=_PRESS, elem_id="explain-blocks")

    def controls(name: str | None) -> list[Any]:
        classifier = app.classifier(name)
        encoder = classifier.network.encoder
        votes, labelled = encoder.has_class_rows, terms(classifier.config).labelled
        return [
            gr.update(visible=votes, value="votes"),
            gr.update(visible=votes, choices=_numbered("blocks", encoder.num_blocks if votes else 0), value=ALL),
            gr.update(visible=votes, choices=_numbered("heads", encoder.num_heads if votes else 0), value=ALL),
            gr.update(visible=labelled and not votes, choices=[], value=None),
        ]

    def show(
        path: str | None, name: str | None, what: str, block: str, head: str, target: str | None, opacity: float
    ) -> list[Any]:
        if path is None:
            return [_EMPTY, gr.update(value=None, visible=False), "", "", gr.update(choices=[], value=None)]
        found = _explained(app, app.name(name), path, _index(target))
        view = what if what in found.explanation.views else found.explanation.views[0]
        image, vmin, vmax = _draw(found, block, head, view, opacity)
        labelled = terms(app.classifier(name).config).labelled
        return [
            render.verdict("Predicted class", found.prediction.classes[0])
            if labelled
            else render.nearest_cluster(found.prediction),
            gr.update(value=image, visible=True),
            _scale(found, view, vmin, vmax, labelled),
            _filmstrip(found, block, head, view, opacity),
            _class_choices(found),
        ]

    def press(name: str | None, event: gr.EventData) -> Any:
        chosen = event._data.get("block")
        known = app.classifier(name).network.encoder.num_blocks
        if chosen != ALL and (not isinstance(chosen, str) or not chosen.isdigit() or int(chosen) >= known):
            raise UserError("There is no such block; choose another.")
        return gr.update(value=chosen)

    work: dict[str, Any] = {"show_progress": "minimal", "trigger_mode": "always_last", **MODEL_WORK, **PRIVATE}
    inputs = [mine, picker, what, block, head, target, opacity]
    outputs = [caption, drawn, scale, blocks, target]

    @reported
    def anew(path: str | None, name: str | None, what: str, block: str, head: str, _: Any, opacity: float) -> list[Any]:
        return show(path, name, what, block, head, None, opacity)

    picker.change(
        quietly(controls, [gr.skip()] * 4), picker, [what, block, head, target], show_progress="hidden", **PRIVATE
    ).then(anew, inputs, outputs, **work)
    tab.select(None, picture, mine, js="(picture) => picture", **PRIVATE).then(anew, inputs, outputs, **work)
    # The Classify tab follows what is chosen here, so that there is one picture.
    mine.input(None, mine, picture, js="(picture) => picture", **PRIVATE).then(anew, inputs, outputs, **work)
    gr.on(
        [what.input, block.change, head.input, target.input, opacity.release],
        reported(show),
        inputs,
        outputs,
        **work,
    )
    blocks.press(reported(press), picker, block, show_progress="hidden", **PRIVATE)
    _endpoint(app)


def _endpoint(app: App) -> None:
    @reported
    def explain(
        image: str,
        checkpoint: str | None = None,
        block: Any = None,
        head: Any = None,
        what: Any = None,
        class_id: Any = None,
        opacity: Any = None,
    ) -> tuple[Image.Image, dict[str, Any]]:
        """Draw where the network looks on one picture.

        Args:
            image: an uploaded file (JPEG, PNG, WebP, GIF, BMP, TIFF), at most 10 MB and 40 megapixels.
            checkpoint: a name of the model picker; the first one when not given.
            block: a transformer block, from 0, or "all" (when not given).
            head: an attention head, from 0, or "all" (when not given).
            what: "votes" (when not given), "scores" (votes enhanced over scales) or "attention"; for networks
                without class-token attention "activation".
            class_id: class of an activation map; the predicted one when not given.
            opacity: of the map, from 0 to 1; 0.7 when not given.

        Returns:
            The picture, its longer side 512 to 1024 pixels, with the map over it, as a file; and the explanation as
            `Explanation.to_dict()` has it, with the checkpoint's name, the five most probable classes, and the map
            shown with its scale.
        """
        name = app.name(checkpoint)
        found = _explained(app, name, image, _index(class_id))
        view = found.explanation.views[0] if what is None else what
        block, head = (ALL if value is None else value for value in (block, head))
        drawn, vmin, vmax = _draw(found, block, head, view, OPACITY if opacity is None else opacity)
        values = found.explanation.select(_index(block), _index(head), view).map.tolist()
        return drawn, {
            "checkpoint": name,
            "classes": [score._asdict() for score in found.prediction.classes],
            **found.explanation.to_dict(),
            "shown": {"block": block, "head": head, "what": view, "vmin": vmin, "vmax": vmax, "map": values},
        }

    arguments = [Argument(name) for name in ("block", "head", "what", "class_id", "opacity")]
    gr.Button(visible=False).click(
        explain,
        [ImageInput(visible=False, label="image"), Choice(visible=False, label="checkpoint"), *arguments],
        [gr.Image(visible=False, format="png", label="overlay"), gr.JSON(visible=False, label="explanation")],
        api_name="explain",
        **MODEL_WORK,
    )


def _explained(app: App, name: str, path: str | None, class_id: int | str | None) -> _Explained:
    """The explanation of a file under a checkpoint, computed once while it is held."""
    from fgdemo.data.images import open_image

    classifier, data = app.classifier(name), read_picture(path)
    if class_id is not None and (isinstance(class_id, bool) or not isinstance(class_id, int)):
        raise UserError(f"A class is a number from 0 to {len(classifier.classes) - 1}.")

    def make() -> _Explained:
        image = open_image(data)
        prediction = classifier.predict([image], top=TOP, prototypes=0, neighbours=0)[0]
        first = prediction.classes[0].class_id
        explanation = classifier.explain(image, first if class_id is None else class_id)
        scale = min(max(max(image.size), _SMALLEST), _LARGEST) / max(image.size)
        size = tuple(max(1, round(side * scale)) for side in image.size)
        width, height = size[0] / image.width, size[1] / image.height
        x0, y0, x1, y1 = explanation.box
        fitted = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
        return _Explained(fitted, (x0 * width, y0 * height, x1 * width, y1 * height), prediction, explanation)

    digest = hashlib.sha256(data).hexdigest()
    return app.once((classifier.checkpoint.directory, digest, class_id), make)


def _draw(found: _Explained, block: Any, head: Any, what: Any, opacity: Any) -> tuple[Image.Image, float, float]:
    """The picture with one map over it, and the ends of the colour scale."""
    from fgdemo.explain.draw import overlay

    if isinstance(opacity, bool) or not isinstance(opacity, int | float):
        raise UserError("Opacity is a number from 0 to 1.")
    view = found.explanation.select(_index(block), _index(head), what)
    image = overlay(found.image, view.map, found.box, opacity=opacity, vmin=view.vmin, vmax=view.vmax)
    return image, view.vmin, view.vmax


def _filmstrip(found: _Explained, block: str, head: str, what: str, opacity: float) -> str:
    """Every block in one view and one colour scale, as buttons; nothing where there are no blocks."""
    from fgdemo.data.images import encode_thumbnail

    tiles = []
    for number in range(found.explanation.num_blocks):
        image = encode_thumbnail(_draw(found, number, head, what, opacity)[0], _TILE, 75)
        tiles.append(
            f'<button type="button" data-block="{number}" aria-pressed="{str(block == str(number)).lower()}">'
            f'<img src="{render.data_url(image)}" alt="Map of block {number}"><span>Block {number}</span></button>'
        )
    if not tiles:
        return ""
    return f'<p class="fg-label">Each block, in one colour scale</p><div class="fg-blocks">{"".join(tiles)}</div>'


def _scale(found: _Explained, view: str, vmin: float, vmax: float, labelled: bool) -> str:
    from fgdemo.explain.draw import color_table

    voting = found.explanation.voting
    view = view if labelled or view != "activation" else "likeness"
    hint = _HINTS[view].format(k=voting.k if voting is not None else 0)
    return render.color_bar(color_table("magma"), vmin, vmax, _UNITS[view], hint)


def _class_choices(found: _Explained) -> Any:
    if found.explanation.activation is None:
        return gr.update(choices=[], value=None)
    scores = found.prediction.classes
    choices = [(f"{score.name}  {render.percent(score.probability)}", str(score.class_id)) for score in scores]
    return gr.update(choices=choices, value=str(found.explanation.activation.target))


def _numbered(noun: str, count: int) -> list[tuple[str, str]]:
    return [(f"All {noun}", ALL), *((f"{number}", f"{number}") for number in range(count))]


def _index(value: Any) -> Any:
    """A choice of the page as the library takes it: numbers come as texts."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value
