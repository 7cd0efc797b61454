"""Why a class has as many subclasses as it has: the criterion's scores over K, in a picture and in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from fgdemo.clustering.criteria.prediction_strength import STRONG
from fgdemo.clustering.criteria.stability import STABLE, STABLE_TIE
from fgdemo.gallery import Gallery
from fgdemo.terms import Terms
from fgdemo.ui.chart import chart
from fgdemo.ui.render import count, distance

MOST_CURVES = 60


class Words(NamedTuple):
    """A criterion for people: its name, what its score says of a K, and which K its rule takes."""

    name: str
    score: str
    rule: str


_STRUCTURELESS = (
    "the smallest K that clearly beats pictures without structure and that the next K does not beat; where none does, "
    "1 if it was compared"
)
CRITERIA = {
    "silhouette": Words(
        "silhouette", "how much nearer pictures are to the centre of their own {group} than to the next", _STRUCTURELESS
    ),
    "exact-silhouette": Words(
        "exact silhouette",
        "how much nearer pictures are to those of their own {group} than to those of the next",
        _STRUCTURELESS,
    ),
    "principal-gap": Words(
        "principal gap",
        "how much tighter the {groups} are than those of pictures without structure, in standard deviations",
        "the highest where it is beyond chance; otherwise 1 if it was compared",
    ),
    "bic": Words(
        "BIC", "how well round {groups} of one spread explain the pictures, less a price for each", "the highest"
    ),
    "stability": Words(
        "stability",
        "how alike the {groups} stay when the pictures are drawn again, 1 being the same",
        f"the largest K within {STABLE_TIE} of the most stable; 1, if it was compared, where that stays below {STABLE}",
    ),
    "gap": Words(
        "gap statistic",
        "how much tighter the {groups} are than those of pictures without structure",
        "the smallest K that the next one does not beat by more than its standard error",
    ),
    "prediction-strength": Words(
        "prediction strength",
        "how much of each {group} one half of the pictures predicts for the other",
        f"the largest K whose strength reaches {STRONG}; the smallest where none does",
    ),
    "cosine-index": Words(
        "cosine index", "how far apart the centres are for how tight the {groups} are, by cosines", "the highest"
    ),
    "cosine-index-as-published": Words(
        "cosine index as published",
        "how close the centres are for how tight the {groups} are, by cosines",
        "the highest",
    ),
}


def criterion_name(chosen_by: str) -> str:
    """What a criterion is called; one that this version does not know, by its own name."""
    return CRITERIA[chosen_by].name if chosen_by in CRITERIA else chosen_by


def scores_of(entry: dict[str, Any]) -> dict[int, float]:
    """K -> score of an entry of subclasses.json, ascending."""
    return dict(sorted((int(k), score) for k, score in entry["scores"].items()))


def score_text(score: float) -> str:
    """A score as people read it."""
    text = f"{score:,.0f}" if abs(score) >= 1000 else distance(score)
    return text.replace("-", "\N{MINUS SIGN}")


def why(gallery: Gallery, class_ids: Sequence[int], class_names: Sequence[str], words: Terms) -> dict[str, Any] | None:
    """What `WhyK` shows: the curves of these classes; None where no class has scores of several K."""
    entries = {entry["class_id"]: entry for entry in gallery.subclasses.get("classes", [])}
    told = [c for c in class_ids if c in entries and len(entries[c]["scores"]) > 1]
    if not told:
        return None
    left_out = len(told) - MOST_CURVES
    return {
        "curves": [
            {"class": class_names[c] if words.labelled else "", **_curve(entries[c], words)} for c in told[:MOST_CURVES]
        ],
        "note": f"The first {MOST_CURVES} of {len(told)} classes; choose fewer to see others." if left_out > 0 else "",
    }


def _curve(entry: dict[str, Any], words: Terms) -> dict[str, Any]:
    scores, chosen = scores_of(entry), entry["k"]
    name = criterion_name(entry["chosen_by"])
    known = CRITERIA.get(entry["chosen_by"])
    return {
        "title": f"Why {count(chosen, words.group, words.groups)}",
        "criterion": name[0].upper() + name[1:],
        "ks": list(scores),
        "scores": list(scores.values()),
        "chosen": chosen,
        "sentence": sentence(scores, chosen, entry["chosen_by"], words),
        "rule": f"Its rule takes {known.rule}. A K that makes too small {words.groups} is passed over."
        if known
        else "",
        "axis": f"K, number of {words.groups}",
    }


def sentence(scores: dict[int, float], chosen: int, chosen_by: str, words: Terms) -> str:
    """The choice in plain words, and what the scores themselves say of it."""
    known = CRITERIA.get(chosen_by)
    by = f"the {known.name}" if known else chosen_by
    means = f": {known.score.format(group=words.group, groups=words.groups)}" if known else ""
    if chosen not in scores:
        return f"None of these K was taken by {by}{means}. So the pictures stay one {words.group}."
    above = [k for k in scores if scores[k] > scores[chosen]]
    if not above:
        compared = "No other K scores higher."
    elif len(above) > 3:
        compared = f"{len(above)} other K score higher."
    else:
        compared = f"K = {' and '.join(map(str, above))} {'score' if len(above) > 1 else 'scores'} higher."
    return f"K = {chosen} was chosen by {by}{means}. {compared}"


class WhyK(gr.HTML):
    """The score over K of one class, the chosen K marked, with the sentence; a menu where there are several classes.

    Its value is that of `why`; nothing is seen of it while that is None.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(value=None, **chart("why_k"), **kwargs)

    def postprocess(self, value: Any) -> Any:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}
