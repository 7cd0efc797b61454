"""The Prototypes tab: the subclasses of a class by their most central pictures, and their names."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import gradio as gr

from fgdemo.errors import UserError
from fgdemo.hypotheses import alternatives
from fgdemo.pictures import STORED, Pictures
from fgdemo.terms import terms
from fgdemo.ui import render
from fgdemo.ui.divisions import CHOSEN, SHOWN, division_under, entry_of, offered
from fgdemo.ui.image_input import Argument, Choice, integer
from fgdemo.ui.pictures import notice
from fgdemo.ui.session import MODEL_WORK, PRIVATE, App, quietly, reported
from fgdemo.ui.why_k import WhyK, why

if TYPE_CHECKING:
    from fgdemo.gallery import Gallery
    from fgdemo.predict import Classifier

MOST = 100
MAX_NAME = 80
_HINT = (
    '<p class="fg-hint">Type names of your own. Saving makes a new version of the checkpoint in your '
    "folder; this one stays as it is.</p>"
)
_NONE = render.empty("Nothing to show yet", "Choose a class to see its subclasses.")
# Names typed and not saved yet live in the page, by checkpoint, so that they outlast a look at another class.
_TYPING = """
window.fgNames = window.fgNames || {};
element.addEventListener('input', (event) => {
  const box = event.target.closest('input[data-subclass]');
  if (!box) return;
  const list = box.closest('[data-checkpoint]');
  const typed = (window.fgNames[list.dataset.checkpoint] ??= {});
  typed[box.dataset.subclass] = box.value;
  box.classList.toggle('fg-changed', box.value !== box.dataset.saved);
});
"""
_TYPED = """
(picker, other, typed, ...more) => [picker, other, JSON.stringify((window.fgNames || {})[picker] || {}), ...more]
"""


def build(app: App, picker: gr.Dropdown, fetching: gr.HTML) -> None:
    """Lay the tab out."""
    with gr.Row(elem_classes="fg-bar-row fg-two"):
        chosen = Choice(choices=[], label="Class", elem_id="prototypes-class", min_width=220)
        hypothesis = Choice(
            choices=[], label="Number of subclasses", elem_id="prototypes-k", min_width=220, visible=False
        )
        save = gr.Button("Save names", variant="primary", scale=0, min_width=150, elem_id="prototypes-save")
        gr.HTML(_HINT, apply_default_css=False, min_width=240)
    reasons = WhyK(elem_id="prototypes-why")
    shelf = gr.HTML(_NONE, apply_default_css=False, js_on_load=_TYPING, elem_id="prototypes-rows")
    typed = gr.Textbox(visible=False)

    def classes(name: str | None) -> Any:
        classifier = app.classifier(name)
        present = {entry["class_id"] for entry in classifier.gallery.subclasses["classes"] if entry["subclasses"]}
        choices = [(label, str(i)) for i, label in enumerate(classifier.classes) if i in present]
        # Without labels there is one class, and nothing to choose.
        labelled = terms(classifier.config).labelled
        return gr.update(choices=choices, value=choices[0][1] if choices else None, visible=labelled)

    @reported
    def show(name: str | None, class_id: str | None, names: str | None, k: str | None = CHOSEN) -> str:
        if class_id is None:
            return _NONE
        number = _class(app.classifier(name), class_id)
        if k in (None, CHOSEN):
            return _rows(app, app.name(name), number, _names(names))
        return division_under(app, app.name(name), number, _number(k))

    @reported
    def show_class(name: str | None, class_id: str | None, names: str | None) -> list[Any]:
        """Another class: its subclasses, the numbers of them to choose from, and why it has so many."""
        if class_id is None:
            return [_NONE, gr.update(choices=[], value=None, visible=False), None]
        classifier = app.classifier(name)
        number = _class(classifier, class_id)
        choices = offered(classifier, number)
        words = terms(classifier.config)
        reason = why(classifier.gallery, [number], classifier.classes, words)
        several = len(choices) > 1
        choice = gr.update(choices=choices, value=CHOSEN, visible=several, label=f"Number of {words.groups}")
        return [show(name, class_id, names), choice, reason]

    @reported
    def keep(name: str | None, _: Any, names: str | None) -> Any:
        known = app.name(name)
        renamed = rename(app.classifier(known).gallery, _names(names))
        new = app.save(known, renamed)
        gr.Info(f"The names are kept in the new checkpoint {new}.")
        return app.picker_update(new)

    picker.change(
        quietly(classes, gr.update(choices=[], value=None)), picker, chosen, show_progress="hidden", **PRIVATE
    ).then(
        show_class, [picker, chosen, typed], [shelf, hypothesis, reasons], js=_TYPED, show_progress="hidden", **PRIVATE
    )
    chosen.input(
        show_class,
        [picker, chosen, typed],
        [shelf, hypothesis, reasons],
        js=_TYPED,
        show_progress="minimal",
        show_progress_on=shelf,
        **PRIVATE,
    )
    for listen in (hypothesis.input, fetching.arrived):
        listen(show, [picker, chosen, typed, hypothesis], shelf, js=_TYPED, show_progress="minimal", **PRIVATE)
    save.click(keep, [picker, chosen, typed], picker, js=_TYPED, **MODEL_WORK, **PRIVATE).success(
        None, picker, None, js="() => { window.fgNames = {}; }", **PRIVATE
    )
    _endpoint(app)


def rename(gallery: Gallery, names: dict[int, str]) -> Gallery:
    """The same gallery with other names of some subclasses.

    Raises:
        UserError: no name differs, a subclass that is not there, or a name that is empty, too long, on more than
            one line, or taken by another subclass of its class.
    """
    document = copy.deepcopy(gallery.subclasses)
    members = {member["id"]: member for entry in document["classes"] for member in entry["subclasses"]}
    changed = 0
    for identity, text in names.items():
        if identity not in members:
            raise UserError(f"There is no subclass {identity} in this checkpoint; its subclasses may have changed.")
        name = _checked_name(text)
        changed += name != members[identity]["name"]
        members[identity]["name"] = name
    if not changed:
        raise UserError("No name was changed: type another name for a subclass, then save.")
    for entry in document["classes"]:
        given = [member["name"] for member in entry["subclasses"]]
        twice = next((name for name in given if given.count(name) > 1), None)
        if twice is not None:
            raise UserError(f'Two subclasses of one class are called "{twice}"; give one of them another name.')
    return gallery.with_subclasses(gallery.subclass_id, document, gallery.centroids)


def _endpoint(app: App) -> None:
    @reported
    def prototypes(class_name: Any, checkpoint: str | None = None, n: Any = None) -> dict[str, Any]:
        """The subclasses of a class with their most central pictures.

        Args:
            class_name: a class of the checkpoint by name, or its number from 0.
            checkpoint: a name of the model picker; the first one when not given.
            n: how many pictures of each subclass, 12 when not given, at most 100.

        Returns:
            class_id, class, chosen_by and scores (what chose the number of subclasses, and what it gave each number),
            hypotheses (other numbers that the class was divided into), and for every subclass its id, name, size,
            spread (mean squared distance of its pictures to their mean), silhouette, and prototypes: gallery row, key,
            cosine distance to the centroid, and thumbnail as a data URL or null.
        """
        known = app.name(checkpoint)
        classifier = app.classifier(known)
        number = integer("n", n, SHOWN, least=0, most=MOST)
        class_id = _class(classifier, class_name)
        return {
            "checkpoint": known,
            "class_id": class_id,
            "class": classifier.classes[class_id],
            "chosen_by": entry_of(classifier, class_id)["chosen_by"],
            "scores": entry_of(classifier, class_id)["scores"],
            "hypotheses": alternatives(classifier.gallery, class_id),
            "subclasses": [
                {**_facts(member), "prototypes": _pictures(classifier.gallery, member["id"], number, app.pictures)}
                for member in _members(classifier, class_id)
            ],
        }

    gr.Button(visible=False).click(
        prototypes,
        [Argument("class_name"), Choice(visible=False, label="checkpoint"), Argument("n")],
        gr.JSON(visible=False, label="subclasses"),
        api_name="prototypes",
        **MODEL_WORK,
    )


def _rows(app: App, name: str, class_id: int, typed: dict[int, str]) -> str:
    classifier, pictures, absent = app.classifier(name), app.pictures, notice(app, name)
    gallery, label, words = classifier.gallery, classifier.classes[class_id], terms(classifier.config)
    rows = []
    for member in _members(classifier, class_id):
        of = label if words.labelled else words.title(member["name"])
        central = [] if absent else gallery.prototypes(member["id"], SHOWN).tolist()
        tiles = [render.tile(gallery, row, of, pictures) for row in central]
        rows.append(render.subclass_row(_facts(member), typed.get(member["id"]), tiles, MAX_NAME))
    return f'<div class="fg-group" data-checkpoint="{render.escape(name)}">{absent}{"".join(rows)}</div>'


def _members(classifier: Classifier, class_id: int) -> list[dict[str, Any]]:
    """Subclasses of a class, largest first."""
    members = entry_of(classifier, class_id)["subclasses"]
    return sorted(members, key=lambda member: (-member["size"], member["id"]))


def _facts(member: dict[str, Any]) -> dict[str, Any]:
    inertia, size = member.get("inertia"), member["size"]
    return {
        "id": member["id"],
        "name": member["name"],
        "size": size,
        "spread": inertia / size if inertia is not None and size else None,
        "silhouette": member.get("silhouette"),
    }


def _pictures(gallery: Gallery, subclass_id: int, n: int, pictures: Pictures = STORED) -> list[dict[str, Any]]:
    import numpy as np

    rows = gallery.prototypes(subclass_id, n)
    centroid = gallery.centroids[np.flatnonzero(gallery.centroid_ids == subclass_id)[0]]
    vectors = gallery.embeddings[rows].astype(np.float32)
    length = np.linalg.norm(centroid) * np.linalg.norm(vectors, axis=1)
    distances = np.clip(1 - vectors @ centroid / np.maximum(length, np.finfo(np.float32).tiny), 0, None)
    return [
        {
            "row": row,
            "key": gallery.keys[row],
            "distance": distance,
            "thumbnail": render.thumbnail_url(gallery, row, pictures),
        }
        for row, distance in zip(rows.tolist(), distances.tolist(), strict=True)
    ]


def _class(classifier: Classifier, value: Any) -> int:
    """Number of a class given by name or number."""
    if isinstance(value, str) and value in classifier.classes:
        return classifier.classes.index(value)
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(classifier.classes):
        shown = f"class {value!r}" if isinstance(value, str | int) and len(str(value)) < 60 else "such class"
        raise UserError(f"There is no {shown} in this checkpoint; give a class's name, or its number from 0.")
    return number


def _number(text: Any) -> int:
    """The K of a hypothesis that was chosen in the page."""
    if isinstance(text, str) and text.isdecimal() and len(text) < 6:
        return int(text)
    raise UserError("There is no such number of subclasses here; choose one of the list.")


def _names(text: str | None) -> dict[int, str]:
    """The names typed in the page, which come as JSON and may be anything."""
    try:
        names = json.loads(text or "{}")
        return {int(identity): str(name) for identity, name in names.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError("The typed names did not arrive; reload the page and type them again.") from error


def _checked_name(text: str) -> str:
    name = text.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise UserError(f"The name of a subclass is one line of 1 to {MAX_NAME} characters.")
    return name
