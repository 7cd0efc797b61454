"""What a view of the Re-cluster tab says in words, figures, pictures and files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from statistics import fmean
from typing import Any

import numpy as np

from fgdemo.gallery import SPLITS
from fgdemo.palette import mark_css
from fgdemo.ui.exploration import View
from fgdemo.ui.render import count, empty, escape, strip, thumbnail_url, tile
from fgdemo.ui.scatter import Group

METHOD_NAMES = {
    "kmeans": "k-means",
    "spherical": "Spherical k-means",
    "gmm": "Gaussian mixture",
    "agglomerative": "Agglomerative",
    "hdbscan": "HDBSCAN",
}
PROJECTION_NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
PROTOTYPES = 8
ROWS_SHOWN = 60
FIGURES_HINT = empty("No comparison yet", "Re-cluster, and each class is compared with its division before.")
POINT_HINT = empty("Press a point", "See its picture, and the most central pictures of its group.")

_COLUMNS = (
    ("K", "number of {groups}"),
    ("J_K / J_1", "inertia ratio: share of the variance left inside the {groups}; lower is tighter"),
    ("Silhouette", "mean silhouette from -1 to 1: higher is better separated; none for a single {group}"),
    ("ARI", "adjusted Rand index between the two divisions: 1 is the same, 0 is chance"),
    ("AMI", "adjusted mutual information between the two divisions: 1 is the same, 0 is chance"),
)


def caption(view: View) -> str:
    """What is drawn, how it came about, and everything that was sampled or replaced on the way."""
    words = view.words
    found = count(sum(group.id >= 0 for group in view.groups), words.group, words.groups)
    of = f" of {count(len(view.class_ids), 'class', 'classes')}" if words.labelled else ""
    facts = [f"{count(len(view.rows), 'picture')}{of} in {found}"]
    if view.outcome is None:
        facts.append("as the checkpoint has them")
    else:
        k = view.settings["k"]
        facts.append(METHOD_NAMES[view.settings["method"]])
        if view.settings["method"] != "hdbscan":
            facts.append("automatic K" if k is None else f"K = {k}")
        if view.settings["pca"]:
            facts.append(f"in {view.settings['pca']} principal components")
        if view.settings["at_least"] > 1:
            facts.append(f"at least {view.settings['at_least']} pictures each")
        facts.append(f"seed {view.settings['seed']}")
    line = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
    notes = "".join(f"<p>{escape(note)}</p>" for note in _notes(view))
    return f'<div class="fg-facts">{line}</div><div class="rc-notes">{notes}</div>'


def _notes(view: View) -> Iterable[str]:
    if view.outcome is not None:
        sampled = view.outcome.sampled
        if sampled:
            method = METHOD_NAMES[view.settings["method"]]
            of = f" of {_some([view.class_names[c] for c in sampled])}" if view.words.labelled else ""
            yield (
                f"{method} ran on a seeded sample of {max(sampled.values()):,} pictures{of}; "
                "the other pictures joined their nearest sampled one."
            )
        if view.outcome.noise:
            noise = count(view.outcome.noise, "picture")
            yield f"HDBSCAN called {noise} noise; each joined the nearest {view.words.group}."
    projection = view.projection
    if projection.method != view.asked:
        yield f"Too few pictures for {PROJECTION_NAMES[view.asked]}: {PROJECTION_NAMES[projection.method]} is drawn."
    if projection.sampled is not None:
        yield (
            f"{PROJECTION_NAMES[projection.method]} placed a seeded sample of {projection.sampled:,} pictures; "
            "the others lie between their nearest sampled ones."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} classes"


def figures(view: View) -> str:
    """Each class before and after, and the mean over classes."""
    outcome = view.outcome
    if outcome is None:
        return FIGURES_HINT
    words = view.words
    tips = [(name, tip.format(group=words.group, groups=words.groups)) for name, tip in _COLUMNS]
    head = "".join(f'<th scope="col" title="{escape(tip)}">{_math(name)}</th>' for name, tip in tips)
    marks: dict[int, list[str]] = {}
    for group in view.groups:
        owner = int(view.gallery.centroid_class[np.searchsorted(view.gallery.centroid_ids, group.id)])
        about = f"{words.title(group.name)}, {count(group.size, 'picture')}"
        marks.setdefault(owner, []).append(_mark(group.style, about))
    body = ""
    table = []
    for class_id in view.class_ids:
        before, after = outcome.before.get(class_id), outcome.after[class_id]
        agreement = outcome.agreement.get(class_id, {})
        values = [
            (before.k if before else None, after.k),
            (before.inertia_ratio if before else None, after.inertia_ratio),
            (before.silhouette if before else None, after.silhouette),
            (agreement.get("ari"),),
            (agreement.get("ami"),),
        ]
        table.append(values)
        name = view.class_names[class_id]
        dots = "".join(marks[class_id])
        label = f'<span>{escape(name)}</span><span class="rc-marks">{dots}</span>'
        body += f'<tr><th scope="row">{label}</th>{_cells(values)}</tr>'
    means = [tuple(_mean(v) for v in zip(*column, strict=True)) for column in zip(*table, strict=True)]
    mean = (
        f'<tr class="rc-mean"><th scope="row">Mean of {count(len(table), "class", "classes")}</th>{_cells(means)}</tr>'
    )
    head = f'<th scope="col">{"Class" if words.labelled else ""}</th>{head}'
    return (
        '<section class="fg-card rc-figures"><h3>Compared with before</h3><div class="rc-scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{mean if len(table) > 1 else ''}{body}</tbody>"
        "</table></div></section>"
    )


def _math(name: str) -> str:
    return {"J_K / J_1": "J<sub>K</sub> / J<sub>1</sub>"}.get(name, escape(name))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else None


def _cells(row: Iterable[tuple[float | None, ...]]) -> str:
    cells = ""
    for values in row:
        *old, new = map(_number, values)
        arrow = f'<i>{old[0]}</i><span class="rc-to" aria-label="then"> → </span>' if old else ""
        cells += f"<td>{arrow}{new}</td>"
    return cells


def _number(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "\N{MINUS SIGN}")


def _mark(style: int, title: str) -> str:
    return f'<i class="rc-mark" style="{mark_css(style)}" title="{escape(title)}"></i>'


def prototypes(view: View, absent: str = "") -> str:
    """The most central pictures of every subclass in view, as rows; `absent` stands for them where there are none."""
    real = [group for group in view.groups if group.id >= 0]
    if not real:
        return empty(f"No {view.words.groups} yet", "Re-cluster to find some.")
    parts, owner = [], ""
    for group in real[:ROWS_SHOWN]:
        if group.class_name != owner:
            owner = group.class_name
            parts.append(f"<h4>{escape(owner)}</h4>")
        member = view.gallery.members[group.id]
        spread = member.get("silhouette")
        facts = count(group.size, "picture") + (f" · silhouette {_number(float(spread))}" if spread is not None else "")
        label = f"{_mark(group.style, '')}<b>{escape(_label(view, group.name))}</b><small>{escape(facts)}</small>"
        central = "" if absent else _central(view, group)
        parts.append(f'<div class="rc-row"><p>{label}</p>{central}</div>')
    if len(real) > ROWS_SHOWN:
        parts.append(
            f'<p class="rc-more">The first {ROWS_SHOWN} of {len(real)} {view.words.groups} are shown; '
            f"{'choose fewer classes, or ' if view.words.labelled else ''}press a point to see the others.</p>"
        )
    return f'<section class="fg-card rc-prototypes"><h3>Prototypes</h3>{absent}{"".join(parts)}</section>'


def _central(view: View, group: Group) -> str:
    rows = view.gallery.prototypes(group.id, PROTOTYPES).tolist()
    of = _whose(view, group)
    return strip([tile(view.gallery, row, of, view.pictures) for row in rows], f"Prototypes of the {view.words.group}")


def _label(view: View, name: str) -> str:
    """A group's name where it stands alone: above a subclass is its class, while a cluster has to say what it is."""
    return name if view.words.labelled else view.words.title(name)


def _whose(view: View, group: Group) -> str:
    """What a picture of the group is a picture of."""
    return group.class_name or view.words.title(group.name)


def point_card(view: View, point: int) -> dict[str, Any]:
    """The hover card of a point."""
    row = int(view.rows[point])
    return {"key": view.gallery.keys[row], "picture": thumbnail_url(view.gallery, row, view.pictures)}


def point_panel(view: View, point: int, absent: str = "") -> str:
    """A chosen picture with its subclass and the prototypes of that; `absent` stands for them where there are none."""
    row = int(view.rows[point])
    gallery = view.gallery
    identity = int(view.group_ids[point])
    group = next(group for group in view.groups if group.id == identity)
    key = gallery.keys[row]
    picture = thumbnail_url(gallery, row, view.pictures)
    shown = (
        f'<img src="{escape(picture)}" alt="{escape(f"Gallery picture of {_whose(view, group)}, {key}")}">'
        if picture
        else absent or '<span class="fg-blank">no picture</span>'
    )
    title = view.words.title(group.name) if identity >= 0 else f"No {view.words.group}"
    head = f"<h3>{_mark(group.style, '') if identity >= 0 else ''}{escape(title)}</h3>"
    facts = [("Class", group.class_name)] if group.class_name else []
    facts.append(("Size", count(group.size, "picture")))
    central = ""
    if identity >= 0:
        nearest = gallery.nearest_subclass(gallery.embeddings[row], int(gallery.class_id[row]))
        own = gallery.centroids[np.searchsorted(gallery.centroid_ids, identity)].astype(np.float64)
        x = np.asarray(gallery.embeddings[row], np.float64)
        cosine = float(x @ own / max(float(np.linalg.norm(x) * np.linalg.norm(own)), 1e-12))
        facts.append(("Distance", f"{max(0.0, 1 - cosine):.2f}"))
        other = nearest.runner_up if nearest.id == identity else nearest.id
        if other >= 0:
            distance = nearest.runner_up_distance if nearest.id == identity else nearest.distance
            facts.append(("Next nearest", f"{_label(view, gallery.members[other]['name'])} at {distance:.2f}"))
        central = "" if absent else f"<h4>Prototypes</h4>{_central(view, group)}"
    facts.append(("Key", key))
    listed = "".join(f"<div><dt>{escape(term)}</dt><dd>{escape(value)}</dd></div>" for term, value in facts)
    return f'<article class="fg-card rc-point">{shown}{head}<dl class="rc-dl">{listed}</dl>{central}</article>'


def as_csv(view: View) -> str:
    """One line for each gallery picture that has a subclass, safe to open in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["key", "split", "class", "subclass_id", "subclass"])
    for item in _assignments(view):
        writer.writerow([_inert(value) for value in item.values()])
    return out.getvalue()


def as_json(view: View) -> str:
    """The same with the settings and the figures."""
    document = {**_head(view), "assignments": list(_assignments(view))}
    return json.dumps(document, ensure_ascii=False, indent=1)


def summary(view: View) -> dict[str, Any]:
    """What the endpoint returns: figures and subclasses, and id and place of every picture in view."""
    return {
        **_head(view),
        "projection": {"method": view.projection.method, "sampled": view.projection.sampled},
        "pictures": {
            "key": [view.gallery.keys[row] for row in view.rows.tolist()],
            "subclass_id": view.gallery.subclass_id[view.rows].tolist(),
            "x": view.projection.points[:, 0].round(4).tolist(),
            "y": view.projection.points[:, 1].round(4).tolist(),
        },
    }


def _head(view: View) -> dict[str, Any]:
    outcome = view.outcome
    classes = []
    entries = {entry["class_id"]: entry for entry in view.gallery.subclasses.get("classes", [])}
    for class_id in view.class_ids:
        item: dict[str, Any] = {"class": view.class_names[class_id], "class_id": class_id}
        if outcome is not None:
            before = outcome.before.get(class_id)
            item["before"] = vars(before) if before else None
            item["after"] = vars(outcome.after[class_id])
            item["agreement"] = outcome.agreement.get(class_id)
            item["sampled"] = outcome.sampled.get(class_id)
        item["subclasses"] = entries.get(class_id, {"subclasses": []})["subclasses"]
        classes.append(item)
    noise = outcome.noise if outcome is not None else 0
    return {"checkpoint": view.checkpoint, "settings": view.settings, "noise": noise, "classes": classes}


def _assignments(view: View) -> Iterable[dict[str, Any]]:
    gallery = view.gallery
    rows = np.flatnonzero(gallery.subclass_id >= 0)
    members = gallery.members
    columns = (gallery.split[rows], gallery.class_id[rows], gallery.subclass_id[rows])
    for row, split, class_id, identity in zip(rows.tolist(), *(c.tolist() for c in columns), strict=True):
        yield {
            "key": gallery.keys[row],
            "split": SPLITS[split],
            "class": view.class_names[class_id],
            "subclass_id": identity,
            "subclass": members[identity]["name"],
        }


def _inert(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
