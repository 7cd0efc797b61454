"""What the tabs show, as HTML: pure functions, every text from a checkpoint or a person escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fgdemo.checkpoint.schema import network_label, title
from fgdemo.pictures import STORED, Pictures
from fgdemo.terms import CLUSTERS, SUBCLASSES, Terms, terms

if TYPE_CHECKING:
    import numpy as np

    from fgdemo.gallery import Gallery
    from fgdemo.predict import Classifier
    from fgdemo.prediction import ClassScore, Prediction, SubclassMatch

# Gradio reads the value of its HTML component as a template too.
_TEMPLATE_SIGNS = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})


class Tile(NamedTuple):
    """One picture of a strip: a data URL or None, its description, and up to two short lines below it."""

    source: str | None
    alt: str
    caption: str = ""
    note: str = ""
    title: str = ""


def escape(value: Any) -> str:
    """Text for any place in HTML or in a quoted attribute."""
    return html.escape(str(value)).translate(_TEMPLATE_SIGNS)


def percent(share: float) -> str:
    """A probability as people read it: never 0% or 100% unless it is."""
    if 0 < share < 0.01:
        return "<1%"
    if 0.99 < share < 1:
        return ">99%"
    return f"{share:.0%}"


def distance(value: float) -> str:
    """A distance or a score with two digits that tell, and at most four decimals."""
    decimals = 2 if abs(value) >= 0.1 else 3 if abs(value) >= 0.01 else 4
    return f"{value:.{decimals}f}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 picture`, `2,048 pictures`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def data_url(data: bytes, kind: str = "webp") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def thumbnail_url(gallery: Gallery, row: int, pictures: Pictures = STORED) -> str | None:
    """A gallery picture as a data URL; None where there is none, or it is not a small picture."""
    data = pictures.thumbnail(gallery, row)
    return data_url(data) if data is not None else None


def tile(
    gallery: Gallery, row: int, class_name: str, pictures: Pictures = STORED, *, caption: str = "", note: str = ""
) -> Tile:
    """A gallery picture for a strip."""
    key = gallery.keys[row]
    return Tile(thumbnail_url(gallery, row, pictures), f"Gallery picture of {class_name}, {key}", caption, note, key)


def strip(tiles: Iterable[Tile], label: str) -> str:
    """Pictures side by side, as many in a line as fit."""
    items = "".join(_figure(item) for item in tiles)
    return f'<ul class="fg-strip" aria-label="{escape(label)}">{items}</ul>' if items else ""


def empty(title: str, hint: str) -> str:
    """What a panel says before there is anything in it."""
    return f'<div class="fg-empty"><p class="fg-empty-title">{escape(title)}</p><p>{escape(hint)}</p></div>'


def message(title: str, text: str, *, warning: bool = True) -> str:
    """Something to notice, inside a result."""
    kind = "fg-notice" if warning else "fg-notice fg-remark"
    return f'<div class="{kind}" role="status"><strong>{escape(title)}</strong><span>{escape(text)}</span></div>'


def prediction_panel(
    classifier: Classifier, prediction: Prediction, pictures: Pictures = STORED, absent: str = ""
) -> str:
    """The result of the Classify tab; `absent` is what stands where the gallery's pictures would, if there are none."""
    gallery, words = classifier.gallery, terms(classifier.config)
    first = prediction.classes[0]
    parts = [_novelty(classifier, prediction)]
    if words.labelled:
        above = prediction.superclass if prediction.superclass != first.name else ""
        parts.append(verdict(above or "Class", first))
        parts.append(bars([(score.name, score.probability) for score in prediction.classes]))
        parts.append(_subclass(gallery, prediction, first.name, pictures, absent))
        parts.append(_posterior(prediction, words))
        names = [n.class_name for n in prediction.neighbours]
    else:
        parts.append(nearest_cluster(prediction))
        parts.append(_cluster(gallery, prediction, pictures, absent))
        parts.append(_posterior(prediction, words))
        found = [gallery.members.get(n.subclass_id) for n in prediction.neighbours]
        names = [words.title(member["name"]) if member else f"No {words.group}" for member in found]
    near = [
        tile(gallery, n.row, name, pictures, caption=name, note=distance(n.distance))
        for n, name in zip(prediction.neighbours, names, strict=True)
    ]
    if near:
        parts.append(_section("Nearest in the gallery", "by cosine distance", strip(near, "Nearest gallery pictures")))
    return f'<article class="fg-card fg-result">{"".join(parts)}</article>'


def verdict(above: str, score: ClassScore) -> str:
    """A class with its probability, large, and a short line above."""
    return (
        f'<header class="fg-verdict"><div><p class="fg-eyebrow">{escape(above)}</p><h2>{escape(score.name)}</h2></div>'
        f'<p class="fg-figure">{escape(percent(score.probability))}</p></header>'
    )


def nearest_cluster(prediction: Prediction) -> str:
    """The nearest cluster, large, where there are no classes."""
    best = prediction.subclass
    if best is None:
        return empty("No clusters", "This checkpoint has no clusters; find some on the Re-cluster tab.")
    return (
        f'<header class="fg-verdict"><div><p class="fg-eyebrow">Nearest cluster</p>'
        f"<h2>{escape(CLUSTERS.title(best.name))}</h2></div></header>"
    )


def bars(shares: Sequence[tuple[str, float]], label: str = "Most probable classes") -> str:
    """Names with their probabilities, drawn to a common scale of 0 to 1."""
    rows = "".join(
        f'<li><span class="fg-bar-name" title="{escape(name)}">{escape(name)}</span>'
        f'<span class="fg-bar" aria-hidden="true"><i style="width:{100 * share:.2f}%"></i></span>'
        f'<span class="fg-bar-value">{escape(percent(share))}</span></li>'
        for name, share in shares
    )
    return f'<ol class="fg-bars" aria-label="{escape(label)}">{rows}</ol>'


def summary(classifier: Classifier) -> str:
    """One line about a checkpoint."""
    gallery, ours, words = classifier.gallery, classifier.config["fgdemo"], terms(classifier.config)
    facts = [title(classifier.config)]
    if words.labelled:
        facts.append(count(len(classifier.classes), "class", "classes"))
    facts.append(count(len(gallery.centroid_ids), words.group, words.groups))
    facts.append(count(len(gallery.train_rows), "gallery picture"))
    figure = next((m for m in ours["metrics"] if m["split"] == "test" and m["name"] == "top1"), None)
    if figure is not None:
        facts.append(f"{figure['value']:.1%} right on {figure['n']:,} test pictures")
    facts.append(network_label(classifier.config))
    return '<p class="fg-facts">' + "".join(f"<span>{escape(fact)}</span>" for fact in facts) + "</p>"


def subclass_row(facts: dict[str, Any], typed: str | None, tiles: Iterable[Tile], longest: int) -> str:
    """A subclass with its name to edit; `typed` is a name that is not saved yet."""
    name = facts["name"] if typed is None else typed
    changed = ' class="fg-changed"' if name != facts["name"] else ""
    figures = [("Size", count(facts["size"], "picture"))]
    figures += [
        (term, distance(facts[key]))
        for term, key in (("Spread", "spread"), ("Silhouette", "silhouette"))
        if facts[key] is not None
    ]
    return (
        '<article class="fg-card"><div class="fg-row-head"><label class="fg-name"><span>Name</span>'
        f'<input type="text" maxlength="{longest}" data-subclass="{facts["id"]}" data-saved="{escape(facts["name"])}" '
        f'value="{escape(name)}"{changed} autocomplete="off" spellcheck="false"></label>{_facts_list(figures)}</div>'
        f"{strip(tiles, 'Prototypes of ' + facts['name'])}</article>"
    )


def cluster_card(title: str, size: int, spread: float, tiles: Iterable[Tile]) -> str:
    """A cluster of a hypothesis, which has no name of its own."""
    figures = [("Size", count(size, "picture")), ("Spread", distance(spread))]
    return (
        f'<article class="fg-card"><div class="fg-row-head"><h3>{escape(title)}</h3>{_facts_list(figures)}</div>'
        f"{strip(tiles, 'Prototypes of ' + title)}</article>"
    )


def color_bar(table: np.ndarray, vmin: float, vmax: float, label: str, hint: str) -> str:
    """A horizontal scale in the colours (256, 3) of the maps, with a line on what they mean."""
    stops = ",".join("#" + bytes(table[i].tolist()).hex() for i in range(0, 256, 15))
    return (
        f'<div class="fg-scale" role="img" aria-label="{escape(label)}, from {vmin:.3g} to {vmax:.3g}">'
        f'<div style="background:linear-gradient(90deg,{stops})"></div>'
        f"<p><span>{vmin:.3g}</span><span>{escape(label)}</span><span>{vmax:.3g}</span></p></div>"
        f'<p class="fg-hint">{escape(hint)}</p>'
    )


def _figure(item: Tile) -> str:
    picture = (
        f'<img src="{escape(item.source)}" alt="{escape(item.alt)}" loading="lazy" decoding="async">'
        if item.source
        else f'<span class="fg-blank" role="img" aria-label="{escape(item.alt)}">no picture</span>'
    )
    caption = f"<b>{escape(item.caption)}</b>" if item.caption else ""
    note = f"<i>{escape(item.note)}</i>" if item.note else ""
    below = f"<figcaption>{caption}{note}</figcaption>" if caption or note else ""
    return f'<li><figure title="{escape(item.title)}">{picture}{below}</figure></li>'


def _facts_list(facts: Iterable[tuple[str, str]]) -> str:
    listed = "".join(f"<div><dt>{escape(term)}</dt><dd>{escape(value)}</dd></div>" for term, value in facts)
    return f'<dl class="fg-dl">{listed}</dl>'


def _section(title: str, aside: str, body: str) -> str:
    return f"<section><h3>{escape(title)}<small>{escape(aside)}</small></h3>{body}</section>"


def _novelty(classifier: Classifier, prediction: Prediction) -> str:
    novelty = prediction.novelty
    if novelty is None or not novelty.is_novel:
        return ""
    facts = classifier.config["fgdemo"]["novelty"]
    labelled = terms(classifier.config).labelled
    known, doubted = ("pictures of known classes", "classes") if labelled else ("gallery's own pictures", "cluster")
    rates = " and ".join(f"{percent(rate['flagged'])} of {rate['data']}" for rate in facts["measured"])
    return message(
        "Unlike anything in the gallery",
        f"The nearest gallery picture is at distance {distance(novelty.score)}; for {facts['quantile']:.0%} of the "
        f"{known} it is within {distance(novelty.threshold)}. Take the {doubted} below with caution."
        + (f" Measured: this flags {rates}." if rates else ""),
    )


def _subclass(gallery: Gallery, prediction: Prediction, class_name: str, pictures: Pictures, absent: str) -> str:
    best, second = prediction.subclass, prediction.runner_up
    if best is None:
        hint = '<p class="fg-hint">This class has no subclasses in this checkpoint.</p>'
        return _section("Subclass", "", hint + absent)
    tiles = (tile(gallery, row, class_name, pictures) for row in prediction.prototypes)
    shown = absent or strip(tiles, "Prototypes of the subclass")
    facts = _match_facts(best, second)
    aside = "" if absent else "its most central pictures"
    return _section(SUBCLASSES.title(best.name), aside, _facts_list(facts) + shown)


def _posterior(prediction: Prediction, words: Terms) -> str:
    """What the network's head says of the subclasses, where that is no matter of course."""
    shares = prediction.posterior
    if len(shares) < 2 or prediction.subclass is None:
        return ""
    agree = shares[0].id == prediction.subclass.id
    verdict = "agrees with" if agree else "differs from"
    shown = bars([(words.title(share.name), share.probability) for share in shares], f"Most probable {words.groups}")
    hint = (
        f"How probable each {words.group} is by outputs of the network that were trained for it. This {verdict} the "
        "nearest one by distance, above."
    )
    given = "given the class" if words.labelled else ""
    return _section(f"The network's own {words.groups}", given, f'{shown}<p class="fg-hint">{escape(hint)}</p>')


def _cluster(gallery: Gallery, prediction: Prediction, pictures: Pictures, absent: str) -> str:
    best = prediction.subclass
    if best is None:
        return absent
    name = CLUSTERS.title(best.name)
    tiles = (tile(gallery, row, name, pictures) for row in prediction.prototypes)
    shown = absent or strip(tiles, "Prototypes of the cluster")
    facts = _facts_list(_match_facts(best, prediction.runner_up, CLUSTERS.title))
    return facts + _section("Its most central pictures", "", shown)


def _match_facts(
    best: SubclassMatch, second: SubclassMatch | None, name: Callable[[str], str] = str
) -> list[tuple[str, str]]:
    facts = [("Size", count(best.size, "picture")), ("Distance", distance(best.distance))]
    if second is not None:
        facts.append(("Runner-up", f"{name(second.name)} at {distance(second.distance)}"))
    return facts
