"""The endpoint of the Explain tab."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from fgdemo.ui.explain_views import ALL, CANDIDATES, OPACITY, Chosen, draw, explained, index
from fgdemo.ui.image_input import Argument, Choice, ImageInput
from fgdemo.ui.session import MODEL_WORK, App, reported


def build(app: App) -> None:
    """Make `explain` known to other programs."""

    @reported
    def explain(
        image: str,
        checkpoint: str | None = None,
        block: Any = None,
        head: Any = None,
        what: Any = None,
        class_id: Any = None,
        opacity: Any = None,
        scale: Any = None,
    ) -> tuple[Image.Image, dict[str, Any]]:
        """Draw where the network looks on one picture.

        Args:
            image: an uploaded file (JPEG, PNG, WebP, GIF, BMP, TIFF), at most 10 MB and 40 megapixels.
            checkpoint: a name of the model picker; the first one when not given.
            block: a transformer block, from 0, or "all" (when not given).
            head: an attention head, from 0, or "all" (when not given).
            what: "votes" (when not given), "scores" (votes enhanced over scales), "attention" or, for networks that
                vote themselves, "candidates"; for networks without class-token attention "activation".
            class_id: class of an activation map; the predicted one when not given.
            opacity: of what is drawn, from 0 to 1; 0.7 when not given.
            scale: of "scores", one of the explanation's dilations, or "all" (when not given).

        Returns:
            The picture, its longer side 512 to 1024 pixels, with the map over it, as a file; and the explanation as
            `Explanation.to_dict()` has it, with the checkpoint's name, the five most probable classes, and what is
            shown: the map with its scale, or for "candidates" those shown.
        """
        name = app.name(checkpoint)
        found = explained(app, name, image, index(class_id))
        explanation = found.explanation
        block, head, scale = (ALL if value is None else index(value) for value in (block, head, scale))
        what = explanation.views[0] if what is None else what
        result = draw([found], Chosen(what, block, head, scale, OPACITY if opacity is None else opacity))
        shown: dict[str, Any] = {"block": block, "what": what}
        if what == CANDIDATES:
            shown["candidates"] = [candidate._asdict() for candidate in explanation.candidates(block)]
        else:
            values = explanation.select(block, head, what, scale).map.tolist()
            shown |= {"head": head, "scale": scale, "vmin": result.vmin, "vmax": result.vmax, "map": values}
        return result.images[0], {
            "checkpoint": name,
            "classes": [score._asdict() for score in found.prediction.classes],
            **explanation.to_dict(),
            "shown": shown,
        }

    arguments = [Argument(name) for name in ("block", "head", "what", "class_id", "opacity", "scale")]
    gr.Button(visible=False).click(
        explain,
        [ImageInput(visible=False, label="image"), Choice(visible=False, label="checkpoint"), *arguments],
        [gr.Image(visible=False, format="png", label="overlay"), gr.JSON(visible=False, label="explanation")],
        api_name="explain",
        **MODEL_WORK,
    )
