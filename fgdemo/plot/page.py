"""A figure as a page: points to hover over, a legend to pick from, the gallery's thumbnails inside."""

from __future__ import annotations

from typing import Any

import numpy as np

from fgdemo.html_page import STATIC, base64_array, escape, html_page
from fgdemo.palette import colour, mark_css, symbol
from fgdemo.plot.colouring import subclass_name
from fgdemo.plot.figure import Figure

MAX_PICTURE_BYTES = 20_000_000
"""Thumbnails of more bytes than this, together, are left out."""

_BODY = """<header>
<h1>{title}</h1>
<p class="facts">{facts}</p>
</header>
<main>
<figure class="frame">
<div class="plot" role="img" aria-label="{label}"></div>
<div class="card" aria-hidden="true"></div>
</figure>
<nav class="legend" aria-label="Press a {colour} to pick it out"></nav>
</main>
{notes}"""


def plot_page(figure: Figure) -> str:
    """The whole page.

    Raises:
        UserError: plotly is not installed.
    """
    pictures, note = _pictures(figure)
    notes = [*figure.notes, *([note] if note else [])]
    facts = figure.facts
    body = _BODY.format(
        title=escape(figure.title),
        facts="".join(f"<span>{escape(fact)}</span>" for fact in facts),
        label=escape("Scatter of " + ", ".join(facts)),
        colour=figure.colour,
        notes=f'<ul class="notes">{"".join(f"<li>{escape(text)}</li>" for text in notes)}</ul>' if notes else "",
    )
    return html_page(
        f"{figure.title}: {', '.join(facts)}",
        body,
        {**_data(figure), "pictures": pictures},
        style=(STATIC / "plot.css").read_text(encoding="utf-8"),
        script=(STATIC / "plot.js").read_text(encoding="utf-8"),
    )


def _data(figure: Figure) -> dict[str, Any]:
    gallery, rows, points = figure.gallery, figure.rows, figure.projection.points
    classes, class_codes = np.unique(gallery.class_id[rows], return_inverse=True)
    subclasses, subclass_codes = np.unique(gallery.subclass_id[rows], return_inverse=True)
    return {
        "colour": figure.colour,
        "groups": [
            {
                "name": group.name,
                "parent": group.parent,
                "size": group.size,
                "colour": colour(group.style),
                "symbol": symbol(group.style),
                "mark": mark_css(group.style),
            }
            for group in figure.groups
        ],
        "x": base64_array(points[:, 0], "<f4"),
        "y": base64_array(points[:, 1], "<f4"),
        "code": base64_array(figure.codes, "<u4"),
        "classes": [figure.class_names[i] for i in classes.tolist()],
        "class": base64_array(class_codes, "<u4"),
        "subclasses": [subclass_name(gallery, i) for i in subclasses.tolist()],
        "subclass": base64_array(subclass_codes, "<u4"),
        "keys": [gallery.keys[row] for row in rows],
    }


def _pictures(figure: Figure) -> tuple[dict[str, str] | None, str | None]:
    """All thumbnails one after another with their offsets, or None; and what to say where they are left out."""
    offsets = figure.gallery.thumbnail_offsets
    starts, ends = offsets[figure.rows], offsets[figure.rows + 1]
    total = int((ends - starts).sum())
    if not total:
        return None, "The checkpoint carries no thumbnails."
    if total > MAX_PICTURE_BYTES:
        note = f"Without thumbnails: {total / 1e6:.0f} MB, above {MAX_PICTURE_BYTES / 1e6:.0f} MB; draw fewer points."
        return None, note
    parts = [figure.gallery.thumbnails[start:end] for start, end in zip(starts, ends, strict=True)]
    packed = {
        "bytes": base64_array(np.concatenate(parts), "u1"),
        "offsets": base64_array(np.concatenate([[0], np.cumsum(ends - starts)]), "<u4"),
    }
    return packed, None
