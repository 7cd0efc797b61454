"""The numbers of subclasses that a class may be looked at under: the chosen one, and hypotheses beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fgdemo.hypotheses import alternatives, clusters_under
from fgdemo.terms import terms
from fgdemo.ui import render
from fgdemo.ui.pictures import notice
from fgdemo.ui.session import App
from fgdemo.ui.why_k import criterion_name, score_text, scores_of

if TYPE_CHECKING:
    from fgdemo.predict import Classifier

SHOWN = 12
CHOSEN = "chosen"


def entry_of(classifier: Classifier, class_id: int) -> dict[str, Any]:
    """The class's entry of subclasses.json; one without subclasses where it has none."""
    entries = classifier.gallery.subclasses["classes"]
    nothing = {"class_id": class_id, "k": 0, "chosen_by": "none", "scores": {}, "subclasses": []}
    return next((entry for entry in entries if entry["class_id"] == class_id), nothing)


def offered(classifier: Classifier, class_id: int) -> list[tuple[str, str]]:
    """What there is to look at, as labels and values: the chosen K, then the hypotheses that differ from it."""
    entry = entry_of(classifier, class_id)
    scores = scores_of(entry)

    def label(k: int, what: str) -> str:
        return f"K = {k}, {what}" + (f", score {score_text(scores[k])}" if k in scores else "")

    others = [(label(k, "hypothesis"), str(k)) for k in alternatives(classifier.gallery, class_id)]
    return [(label(entry["k"], CHOSEN), CHOSEN), *others]


def division_under(app: App, name: str, class_id: int, k: int) -> str:
    """The clusters of a class under another K than the chosen one, as rows of pictures."""
    classifier, absent = app.classifier(name), notice(app, name)
    gallery, words = classifier.gallery, terms(classifier.config)
    label = classifier.classes[class_id] if words.labelled else "the gallery"
    cards = []
    for n, cluster in enumerate(clusters_under(gallery, class_id, k, SHOWN), 1):
        rows = [] if absent else cluster.prototypes.tolist()
        tiles = [render.tile(gallery, row, label, app.pictures) for row in rows]
        cards.append(render.cluster_card(f"Cluster {n} of {k}", cluster.size, cluster.spread, tiles))
    compared = _compared(entry_of(classifier, class_id), k)
    text = (
        f"This is how {label} divides into {k}.{compared} It is kept for comparison: "
        f"names, predictions and the map go by the chosen {words.groups}."
    )
    head = render.message(f"Hypothesis K = {k}", text, warning=False)
    return f'<div class="fg-group">{head}{absent}{"".join(cards)}</div>'


def _compared(entry: dict[str, Any], k: int) -> str:
    scores, chosen = scores_of(entry), entry["k"]
    if k not in scores:
        return ""
    than = f", that of the chosen K = {chosen} is {score_text(scores[chosen])}" if chosen in scores else ""
    return f" Its {criterion_name(entry['chosen_by'])} is {score_text(scores[k])}{than}."
