"""Colours and shapes of groups of points: the same in the app, on pages and in pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Far apart in OKLab (at least 0.13), each with contrast above 2 on white and on near-black; neighbours farthest apart.
PALETTE = (
    *("#2981fb", "#f86111", "#04a322", "#c01085", "#865812", "#fb69de", "#1d97a2", "#4a46dc"),
    *("#e1a536", "#bb6c6f", "#047745", "#47b5fa", "#b858ea", "#07c7a4", "#2b6899", "#fa96a3"),
    *("#c21b0d", "#988e40", "#f8417d", "#8c25bb", "#bf9bfc", "#897abd", "#8fbe1e", "#864c79"),
)

# plotly's symbol, and the corners of the same shape in a unit box, y downwards; a circle fills the box
SYMBOLS: dict[str, tuple[tuple[float, float], ...]] = {
    "circle": (),
    "diamond": ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
    "square": ((0.08, 0.08), (0.92, 0.08), (0.92, 0.92), (0.08, 0.92)),
    "triangle-up": ((0.5, 0.04), (1, 0.92), (0, 0.92)),
    "cross": (
        *((0.32, 0), (0.68, 0), (0.68, 0.32), (1, 0.32), (1, 0.68), (0.68, 0.68)),
        *((0.68, 1), (0.32, 1), (0.32, 0.68), (0, 0.68), (0, 0.32), (0.32, 0.32)),
    ),
}
STYLES = len(PALETTE) * len(SYMBOLS)


def assign_styles(ids: Iterable[int], before: Mapping[int, int] | None = None) -> dict[int, int]:
    """A style for every id: what it had before, else a free one, by preference id modulo the colours.

    A style counts through the colours of the first symbol, then of the next. Up to 24 ids get 24 colours; beyond,
    colours return with other symbols; beyond 120, styles repeat.
    """
    wanted = sorted(set(ids))
    before = before or {}
    styles: dict[int, int] = {}
    used: set[int] = set()
    for identity in wanted:
        style = before.get(identity)
        # an earlier style of a crowded picture gives way where a plain circle is enough now
        if style is not None and style not in used and (style < len(PALETTE) or len(wanted) > len(PALETTE)):
            styles[identity] = style
            used.add(style)
    for identity in wanted:
        if identity in styles:
            continue
        start = identity % len(PALETTE)
        rounds = (shape * len(PALETTE) for shape in range(len(SYMBOLS)))
        order = (first + (start + step) % len(PALETTE) for first in rounds for step in range(len(PALETTE)))
        styles[identity] = next((style for style in order if style not in used), identity % STYLES)
        used.add(styles[identity])
    return styles


def colour(style: int) -> str:
    return PALETTE[style % len(PALETTE)]


def symbol(style: int) -> str:
    return tuple(SYMBOLS)[style // len(PALETTE) % len(SYMBOLS)]


def mark_css(style: int) -> str:
    """Inline CSS that gives a small box the colour and shape of the points of a style."""
    corners = ", ".join(f"{100 * x:g}% {100 * y:g}%" for x, y in SYMBOLS[symbol(style)])
    return f"background:{colour(style)};clip-path:{f'polygon({corners})' if corners else 'circle(50%)'}"
