"""What the Explain tab draws: pictures with one view over them, the same for every block, and its colour scale."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from fgdemo.errors import UserError
from fgdemo.ui import render
from fgdemo.ui.image_input import read_picture

if TYPE_CHECKING:
    from fgdemo.explain.explanation import Explanation
    from fgdemo.prediction import Prediction
    from fgdemo.ui.session import App

ALL = "all"
CANDIDATES = "candidates"
OPACITY = 0.7
TOP = 5
# Longer side of what is drawn: a map on a tiny picture needs room, and a large one gains nothing.
_SMALLEST, _LARGEST = 512, 1024
_TILE = 160
_UNITS = {
    "votes": "votes of the heads",
    "scores": "enhanced votes",
    "attention": "share of attention",
    "activation": "contribution to the class",
    "likeness": "contribution to the likeness",
}
_HINTS = {
    "votes": "Every head votes for the {k} patches that the class token attends to most; the map counts the votes.",
    "weighed": "Every head votes for the {k} patches that the class token attends to most; its votes weigh what it "
    "attends to them, and sum to one.",
    "scores": "Votes that lie together at one of several scales strengthen each other.",
    "scale": "Votes that lie {scale} apart strengthen each other. All single scales share one colour scale.",
    "attention": "Where the class token's attention goes, as shares among the patches.",
    "activation": "What each place adds to the evidence for the chosen class.",
    "likeness": "What each place adds to the likeness to the nearest gallery pictures.",
}
_CHOSEN_BY = {
    "votes": "Candidates of a block are the patches with the most enhanced votes; a final vote among all decides which "
    "survive.",
    "attention": "A control: candidates and survivors are chosen by mean attention.",
    "random": "A control: candidates and survivors are drawn at random.",
}


class Chosen(NamedTuple):
    """A view: votes, scores, attention, candidates or activation; of one block, head and scale, or of all."""

    what: Any
    block: Any = ALL
    head: Any = ALL
    scale: Any = ALL
    opacity: Any = OPACITY


class Explained(NamedTuple):
    """A picture at the size it is drawn, the part of it that the network saw, and what was found."""

    image: Image.Image
    box: tuple[float, float, float, float]
    prediction: Prediction
    explanation: Explanation


class Drawn(NamedTuple):
    """Pictures with a view over them, and the ends of their colour scale, or None for candidates."""

    images: list[Image.Image]
    vmin: float | None
    vmax: float | None


def explained(app: App, name: str, path: str | None, class_id: int | str | None) -> Explained:
    """The explanation of a file under a checkpoint, computed once while it is held.

    Raises:
        UserError: no readable picture, or no such class.
    """
    from fgdemo.data.images import open_image

    classifier, data = app.classifier(name), read_picture(path)
    if class_id is not None and (isinstance(class_id, bool) or not isinstance(class_id, int)):
        raise UserError(f"A class is a number from 0 to {len(classifier.classes) - 1}.")

    def make() -> Explained:
        image = open_image(data)
        prediction = classifier.predict([image], top=TOP, prototypes=0, neighbours=0)[0]
        first = prediction.classes[0].class_id
        explanation = classifier.explain(image, first if class_id is None else class_id)
        scale = min(max(max(image.size), _SMALLEST), _LARGEST) / max(image.size)
        size = tuple(max(1, round(side * scale)) for side in image.size)
        width, height = size[0] / image.width, size[1] / image.height
        x0, y0, x1, y1 = explanation.box
        fitted = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
        return Explained(fitted, (x0 * width, y0 * height, x1 * width, y1 * height), prediction, explanation)

    digest = hashlib.sha256(data).hexdigest()
    return app.once((classifier.checkpoint.directory, digest, class_id), make)


def views(explanation: Explanation) -> tuple[str, ...]:
    """What there is to see."""
    pool = explanation.pool
    return (*explanation.views, CANDIDATES) if pool is not None and pool.candidates else explanation.views


def draw(found: Sequence[Explained], chosen: Chosen) -> Drawn:
    """Each picture with the same view over it, on one colour scale: the widest of theirs.

    Raises:
        UserError: a choice that these explanations do not have.
    """
    from fgdemo.explain.draw import block_colors, mark_candidates, overlay

    what, block, head, scale, opacity = chosen
    known = views(found[0].explanation)
    if what not in known:
        raise UserError(f"This explanation shows {', '.join(known)}, not {what!r}.")
    if isinstance(opacity, bool) or not isinstance(opacity, int | float):
        raise UserError("Opacity is a number from 0 to 1.")
    if what == CANDIDATES:
        if (head, scale) != (ALL, ALL):
            raise UserError("Candidates are the choice of all heads and scales together: leave both at 'all'.")
        colors = block_colors(found[0].explanation.num_blocks)
        images = [
            mark_candidates(
                one.image,
                one.explanation.candidates(block),
                one.explanation.grid,
                one.box,
                colors=colors,
                opacity=opacity,
            )
            for one in found
        ]
        return Drawn(images, None, None)
    maps = [one.explanation.select(block, head, what, scale) for one in found]
    vmin, vmax = min(view.vmin for view in maps), max(view.vmax for view in maps)
    images = [
        overlay(one.image, view.map, one.box, opacity=opacity, vmin=vmin, vmax=vmax)
        for one, view in zip(found, maps, strict=True)
    ]
    return Drawn(images, vmin, vmax)


def filmstrip(found: Sequence[Explained], chosen: Chosen) -> str:
    """Every block in one view and one colour scale, as buttons; nothing where there are no blocks."""
    from fgdemo.data.images import encode_thumbnail

    tiles = []
    for number in range(found[0].explanation.num_blocks):
        images = "".join(
            f'<img src="{render.data_url(encode_thumbnail(image, _TILE, 75))}" alt="Map of block {number}">'
            for image in draw(found, chosen._replace(block=number)).images
        )
        pressed = str(chosen.block == number).lower()
        tiles.append(
            f'<button type="button" data-block="{number}" aria-pressed="{pressed}">{images}'
            f"<span>Block {number}</span></button>"
        )
    if not tiles:
        return ""
    label = "The candidates of each block" if chosen.what == CANDIDATES else "Each block, in one colour scale"
    return f'<p class="fg-label">{label}</p><div class="fg-blocks">{"".join(tiles)}</div>'


def index(value: Any) -> Any:
    """A choice of the page as the library takes it: numbers come as texts."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value


def key(found: Sequence[Explained], chosen: Chosen, drawn: Drawn, labelled: bool) -> str:
    """How to read what is drawn: the colour scale of a map, or what the discs are."""
    from fgdemo.explain.draw import color_table

    if chosen.what == CANDIDATES:
        return f'<p class="fg-hint">{render.escape(_discs([one.explanation for one in found]))}</p>'
    voting, what = found[0].explanation.voting, chosen.what
    unit = hint = what if labelled or what != "activation" else "likeness"
    label, one_scale = _UNITS[unit], ""
    if chosen.scale != ALL:
        hint, one_scale = "scale", render.count(chosen.scale, "patch", "patches")
        label += f", {one_scale} apart"
    if what == "votes" and voting.votes.dtype.kind == "f":
        hint = "weighed"
    said = _HINTS[hint].format(k=voting.k if voting is not None else 0, scale=one_scale)
    return render.color_bar(color_table("magma"), drawn.vmin, drawn.vmax, label, said)


def _discs(explanations: Sequence[Explanation]) -> str:
    pool = explanations[0].pool
    refined = [candidate for candidate in pool.candidates if candidate.refined is not None]
    merged = sum(candidate.y is None for candidate in refined)
    survivors = "White rings mark the survivors"
    if len(explanations) == 1:
        survivors = f"White rings mark the {render.count(len(refined) - merged, 'survivor')}"
        survivors += f"; {render.count(merged, 'merged token')} survived too" if merged else ""
    if set(pool.probabilities) == {"final"}:
        survivors += ", which this network has no further use for"
    return (
        f"{_CHOSEN_BY[pool.selection]} A disc has its block's colour; a patch that several blocks chose is divided "
        f"among them. {survivors}."
    )
