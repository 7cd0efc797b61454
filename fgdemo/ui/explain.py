"""The Explain tab: where the attention heads look, or what the class activation map of a CNN shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from fgdemo.errors import UserError
from fgdemo.terms import terms
from fgdemo.ui import explain_endpoint, render
from fgdemo.ui.explain_pool import panel
from fgdemo.ui.explain_views import (
    ALL,
    CANDIDATES,
    OPACITY,
    TOP,
    Chosen,
    Explained,
    draw,
    explained,
    filmstrip,
    index,
    key,
    views,
)
from fgdemo.ui.image_input import Choice, ImageInput
from fgdemo.ui.session import MODEL_WORK, PRIVATE, App, quietly, reported

if TYPE_CHECKING:
    from fgdemo.models.network import Network

_VIEWS = [("Votes of the heads", "votes"), ("Votes, enhanced over scales", "scores"), ("Attention", "attention")]
_CANDIDATES = ("Candidates and refined picks", CANDIDATES)
_EMPTY = render.empty("No picture yet", "Choose a picture here or on the Classify tab to see what its class rests on.")
_PRESS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-block]');
  if (button) trigger('press', {block: button.dataset.block});
});
"""


def build(app: App, picker: gr.Dropdown, picture: ImageInput, tab: gr.Tab) -> None:
    """Lay the tab out; it opens with the picture of the Classify tab."""
    with gr.Row(equal_height=False, elem_classes="fg-columns"):
        with gr.Column(scale=5, min_width=300):
            mine = _picture("Picture", 260, "explain-picture", "The picture to explain")
            what = Choice(choices=_VIEWS, value="votes", label="Show", filterable=False, elem_id="explain-what")
            with gr.Row():
                block = Choice(choices=[ALL], value=ALL, label="Block", filterable=False, min_width=120)
                head = Choice(choices=[ALL], value=ALL, label="Head", filterable=False, min_width=120)
            scale = Choice(
                choices=[ALL], value=ALL, label="Scale", filterable=False, visible=False, elem_id="explain-scale"
            )
            target = Choice(choices=[], label="Class", filterable=False, visible=False, elem_id="explain-class")
            opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity", elem_id="explain-opacity")
            with gr.Accordion(
                "Compare with a second picture", open=False, visible=False, elem_id="explain-compare"
            ) as compare:
                other = _picture("Second picture", 200, "explain-second", "The picture to compare with")
        with gr.Column(scale=8, min_width=320):
            with gr.Row(equal_height=False):
                with gr.Column(min_width=260):
                    caption, drawn = _result("explain-caption", "explain-drawn", _EMPTY)
                with gr.Column(min_width=260, visible=False) as beside:
                    caption_2, drawn_2 = _result("explain-caption-2", "explain-drawn-2", "")
            legend = gr.HTML("", apply_default_css=False, elem_id="explain-key")
            blocks = gr.HTML("", apply_default_css=False, js_on_load=_PRESS, elem_id="explain-blocks")
            pool = gr.HTML("", apply_default_css=False, elem_id="explain-pool")

    def controls(name: str | None) -> list[Any]:
        classifier = app.classifier(name)
        network, encoder = classifier.network, classifier.network.encoder
        votes, labelled = encoder.has_class_rows, terms(classifier.config).labelled
        itself = _votes_itself(network)
        pooled = itself and network.pool_size > 0
        return [
            gr.update(visible=votes, choices=[*_VIEWS, _CANDIDATES] if pooled else _VIEWS, value="votes"),
            gr.update(visible=votes, choices=_numbered("blocks", encoder.num_blocks if votes else 0), value=ALL),
            gr.update(visible=votes, choices=_numbered("heads", encoder.num_heads if votes else 0), value=ALL),
            gr.update(visible=False, choices=_scales(network), value=ALL),
            gr.update(visible=itself),
            gr.update(visible=labelled and not votes, choices=[], value=None),
        ]

    def fit(name: str | None, what: str) -> list[Any]:
        """Only the choices that the view has."""
        several = len(_scales(app.classifier(name).network)) > 2
        return [gr.update(visible=what != CANDIDATES), gr.update(visible=what == "scores" and several)]

    def show(
        path: str | None,
        name: str | None,
        what: str,
        block: str,
        head: str,
        target: str | None,
        opacity: float,
        scale: str = ALL,
        other: str | None = None,
    ) -> list[Any]:
        hidden = gr.update(value=None, visible=False)
        if path is None:
            return [_EMPTY, hidden, "", "", gr.update(choices=[], value=None), "", hidden, gr.update(visible=False), ""]
        found = [explained(app, app.name(name), path, index(target))]
        first = found[0].explanation
        if other is not None and first.pool is not None:
            found.append(explained(app, app.name(name), other, None))
        what = what if what in views(first) else views(first)[0]
        # Choices that the view does not have are out of sight and keep what they were.
        head, scale = (ALL if what == CANDIDATES else head), (scale if what == "scores" else ALL)
        chosen = Chosen(what, index(block), index(head), index(scale), opacity)
        result, labelled = draw(found, chosen), terms(app.classifier(name).config).labelled
        captions = [_caption(one, labelled) for one in found]
        second = len(found) > 1
        return [
            captions[0],
            gr.update(value=result.images[0], visible=True),
            key(found, chosen, result, labelled),
            filmstrip(found, chosen),
            _class_choices(found[0]),
            captions[1] if second else "",
            gr.update(value=result.images[1], visible=True) if second else hidden,
            gr.update(visible=second),
            _panel(found, app.classifier(name).classes),
        ]

    def press(name: str | None, event: gr.EventData) -> Any:
        chosen = event._data.get("block")
        known = app.classifier(name).network.encoder.num_blocks
        if chosen != ALL and (not isinstance(chosen, str) or not chosen.isdigit() or int(chosen) >= known):
            raise UserError("There is no such block; choose another.")
        return gr.update(value=chosen)

    work: dict[str, Any] = {"show_progress": "minimal", "trigger_mode": "always_last", **MODEL_WORK, **PRIVATE}
    quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
    inputs = [mine, picker, what, block, head, target, opacity, scale, other]
    outputs = [caption, drawn, legend, blocks, target, caption_2, drawn_2, beside, pool]

    @reported
    def anew(*given: Any) -> list[Any]:
        path, name, what, block, head, _, *rest = given
        return show(path, name, what, block, head, None, *rest)

    fitted = [what, block, head, scale, compare, target]
    picker.change(quietly(controls, [gr.skip()] * len(fitted)), picker, fitted, **quiet).then(
        anew, inputs, outputs, **work
    )
    tab.select(None, picture, mine, js="(picture) => picture", **PRIVATE).then(anew, inputs, outputs, **work)
    # The Classify tab follows what is chosen here, so that there is one picture.
    mine.input(None, mine, picture, js="(picture) => picture", **PRIVATE).then(anew, inputs, outputs, **work)
    what.input(quietly(fit, [gr.skip()] * 2), [picker, what], [head, scale], **quiet)
    gr.on(
        [what.input, block.change, head.input, scale.input, target.input, opacity.release, other.change],
        reported(show),
        inputs,
        outputs,
        **work,
    )
    blocks.press(reported(press), picker, block, **quiet)
    explain_endpoint.build(app)


def _picture(label: str, height: int, elem_id: str, alt_text: str) -> ImageInput:
    return ImageInput(
        label=label,
        show_label=False,
        height=height,
        sources=["upload", "clipboard", "webcam"],
        buttons=[],
        elem_id=elem_id,
        placeholder="Drop a picture here\nor click to choose one",
        alt_text=alt_text,
    )


def _result(caption_id: str, drawn_id: str, said: str) -> tuple[gr.HTML, gr.Image]:
    caption = gr.HTML(said, apply_default_css=False, elem_id=caption_id)
    drawn = gr.Image(
        visible=False,
        interactive=False,
        show_label=False,
        format="png",
        buttons=["download", "fullscreen"],
        elem_id=drawn_id,
        alt_text="The picture with the map drawn over it",
    )
    return caption, drawn


def _caption(found: Explained, labelled: bool) -> str:
    if labelled:
        return render.verdict("Predicted class", found.prediction.classes[0])
    return render.nearest_cluster(found.prediction)


def _panel(found: list[Explained], classes: tuple[str, ...]) -> str:
    from fgdemo.explain.draw import block_colors

    pools = [one.explanation.pool for one in found]
    return panel(pools, block_colors(found[0].explanation.num_blocks), classes, TOP) if pools[0] is not None else ""


def _class_choices(found: Explained) -> Any:
    if found.explanation.activation is None:
        return gr.update(choices=[], value=None)
    scores = found.prediction.classes
    choices = [(f"{score.name}  {render.percent(score.probability)}", str(score.class_id)) for score in scores]
    return gr.update(choices=choices, value=str(found.explanation.activation.target))


def _votes_itself(network: Network) -> bool:
    from fgdemo.models.voting import VotingNetwork

    return isinstance(network, VotingNetwork)


def _numbered(noun: str, count: int) -> list[tuple[str, str]]:
    return [(f"All {noun}", ALL), *((f"{number}", f"{number}") for number in range(count))]


def _scales(network: Network) -> list[tuple[str, str]]:
    """Scales that a network itself votes over, and all together."""
    known = network.settings.dilations if _votes_itself(network) else ()
    return [("All scales", ALL), *((f"{render.count(d, 'patch', 'patches')} apart", f"{d}") for d in known)]
