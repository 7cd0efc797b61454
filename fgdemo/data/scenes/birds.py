"""Three look-alike birds, seen from the side, facing right."""

from __future__ import annotations

from fgdemo.data.scenes.creature import Creature, as_part, feathering, round_eye
from fgdemo.data.scenes.draws import Draws
from fgdemo.data.scenes.geometry import crescent, ellipse, heart, leaf, ribbon, ring, smooth, star
from fgdemo.data.scenes.painter import Mark, Piece
from fgdemo.data.scenes.palettes import CERISE, CORAL, GOLD, INDIGO, IVORY, Coat, bold_on, mix


def _body(d: Draws, coat: Coat, plump: float) -> tuple[Piece, float]:
    """Head and trunk in one outline, with a pale belly; returns it with the height of the back."""
    belly = plump * d.uniform(0.94, 1.06)
    head = d.uniform(-0.04, 0.03)
    outline = smooth(
        [
            (0.40, -0.66 + head),
            (0.66, -0.44 + head),
            (0.60, -0.16),
            (0.60, 0.16 * belly),
            (0.22, 0.52 * belly),
            (-0.34, 0.40 * belly),
            (-0.74, 0.06),
            (-0.42, -0.22),
            (0.02, -0.44 + head / 2),
        ]
    )
    belly_mark = smooth([(0.66, -0.1), (0.70, 0.3), (0.2, 0.7), (-0.42, 0.52), (-0.1, 0.2), (0.30, 0.02)])
    marks = [Mark(belly_mark, coat.pale)]
    return Piece([outline], coat.main, marks, relief=1.0, lift=0.30), head


def _wing(d: Draws, coat: Coat, droop: float) -> Piece:
    tip = (-0.86 + d.uniform(-0.05, 0.05), droop)
    outline = smooth([(0.22, -0.20), (0.26, 0.06), (-0.02, 0.26), (-0.42, 0.26), tip, tip, (-0.36, -0.12)])
    return Piece([outline], coat.second, feathering(d, coat), relief=0.8, lift=0.32)


def _legs(coat: Coat, x: float = 0.06, length: float = 0.34) -> Piece:
    outlines = []
    for dx in (-0.10, 0.12):
        foot = 0.42 + length
        outlines.append(ribbon([(x + dx, 0.36), (x + dx + 0.03, foot)], 0.055, 0.045))
        outlines.append(
            ribbon([(x + dx - 0.07, foot + 0.03), (x + dx + 0.03, foot), (x + dx + 0.16, foot + 0.03)], 0.04, 0.03)
        )
    return Piece(outlines, coat.dark, lift=0.12)


def _beak(coat: Coat, head: float, kind: str) -> Piece:
    y = -0.40 + head
    shapes = {
        "thin": [(0.56, y - 0.07), (0.98, y + 0.06), (0.98, y + 0.06), (0.58, y + 0.07)],
        "cone": [(0.52, y - 0.17), (0.92, y + 0.04), (0.92, y + 0.04), (0.54, y + 0.17)],
        "curved": [
            (0.55, y - 0.10),
            (0.80, y - 0.06),
            (1.0, y + 0.17),
            (1.0, y + 0.17),
            (0.74, y + 0.06),
            (0.58, y + 0.09),
        ],
    }
    return Piece([smooth(shapes[kind])], mix(coat.accent, (255, 255, 255), 0.08), relief=0.6, lift=0.15)


def bramble_wren(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Round, with a cocked tail and a thin beak; the crest on its head tells the subclasses apart."""
    body, head = _body(d, coat, 1.12)
    lean = d.uniform(-0.05, 0.05)
    tail = [
        smooth([(-0.56, 0.12), (-1.06 - lean, -0.44 - k), (-0.92 - lean, -0.58 - k), (-0.44, -0.14)], 5)
        for k in (0.0, 0.12)
    ]
    x, y = 0.30, -0.62 + head
    crests = [
        [
            Piece([ribbon([(x, y + 0.1), (x - 0.02, y - 0.24), (x - 0.26, y - 0.36)], 0.11, 0.07)], CORAL, relief=0.5),
            Piece([ellipse(x - 0.30, y - 0.33, 0.13)], CORAL, relief=0.8, lift=0.2),
        ],
        [Piece([leaf(x + 0.02, y + 0.1, 0.50, 0.30, t) for t in (-138, -106, -74)], GOLD, relief=0.4, lift=0.2)],
        [Piece([crescent(x - 0.04, y - 0.20, 0.32, -90.0, 0.75)], CERISE, relief=0.5, lift=0.2)],
    ]
    return Creature(
        [
            Piece(tail, coat.second, relief=0.6, lift=0.2),
            _legs(coat),
            _beak(coat, head, "thin"),
            *as_part(crests[subclass]),
            body,
            _wing(d, coat, d.uniform(0.12, 0.22)),
            *round_eye(0.42, -0.42 + head, 0.115),
        ],
        site=(x - 0.08, y - 0.16, 0.42),
    )


def harbour_finch(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Stout beak and forked tail; the badge on its wing tells the subclasses apart."""
    body, head = _body(d, coat, 0.98)
    low = d.uniform(-0.04, 0.06)
    tail = [
        smooth([(-0.58, 0.16), (-1.22, 0.34 + low), (-1.22, 0.34 + low), (-0.92, 0.02), (-0.60, -0.06)], 5),
        smooth([(-0.58, 0.10), (-0.92, 0.0), (-1.24, -0.16 + low), (-1.24, -0.16 + low), (-0.60, -0.10)], 5),
    ]
    wing = _wing(d, coat, d.uniform(0.08, 0.18))
    wing.marks = []
    badges = [
        [Mark(ellipse(-0.10, 0.03, 0.19), IVORY, True), Mark(ellipse(-0.10, 0.03, 0.10), INDIGO, True)],
        [
            Mark(ribbon([(0.08 - k, -0.22), (0.0 - k, 0.04), (0.05 - k, 0.28)], 0.10, 0.10), bold_on(coat.second), True)
            for k in (0.06, 0.26)
        ],
    ]
    wing.marks = badges[subclass]
    cap = Mark(smooth([(0.0, -0.48), (0.3, -0.62), (0.72, -0.52 + head), (0.74, -0.85), (0.1, -0.85)]), coat.second)
    body.marks.append(cap)
    return Creature(
        [
            Piece(tail, coat.second, relief=0.6, lift=0.2),
            _legs(coat),
            _beak(coat, head, "cone"),
            body,
            wing,
            *round_eye(0.42, -0.38 + head, 0.11),
        ],
        site=(-0.10, 0.03, 0.32),
    )


def ribbon_drongo(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Slim, with a bent beak and one long tail ribbon; what hangs on the ribbon tells the subclasses apart."""
    body, head = _body(d, coat, 0.86)
    sway = d.uniform(-0.12, 0.12)
    end = (-1.36, 0.34 + sway)
    streamer = ribbon([(-0.56, 0.04), (-0.98, 0.06 - sway / 2), end], 0.17, 0.06)
    x, y = end[0] - 0.12, end[1] + 0.08
    tips = [
        [Piece([ellipse(x, y, 0.22)], CORAL, [Mark(ellipse(x, y, 0.10), IVORY, True)], relief=0.6, lift=0.25)],
        [Piece([heart(x, y, 0.25, 70.0)], CORAL, relief=0.6, lift=0.25)],
        [Piece([star(x, y, 0.30, 0.12, 4, 20.0)], GOLD, relief=0.5, lift=0.25)],
        [Piece([ring(x, y, 0.25, 0.12)], CERISE, relief=0.5, lift=0.25)],
    ]
    stub = smooth([(-0.5, 0.2), (-0.98, 0.34), (-1.0, 0.18), (-0.98, -0.06), (-0.5, -0.12)], 5)
    return Creature(
        [
            Piece([stub], coat.second, relief=0.6, lift=0.2),
            Piece([streamer], coat.dark, relief=0.3, lift=0.15),
            *as_part(tips[subclass]),
            _legs(coat),
            _beak(coat, head, "curved"),
            body,
            _wing(d, coat, d.uniform(0.02, 0.12)),
            *round_eye(0.42, -0.41 + head, 0.11),
        ],
        site=(x, y, 0.32),
    )
