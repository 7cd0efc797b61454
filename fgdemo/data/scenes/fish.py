"""Three look-alike fish, seen from the side, facing right."""

from __future__ import annotations

import numpy as np

from fgdemo.data.scenes.creature import Creature, as_part, pattern, round_eye
from fgdemo.data.scenes.draws import Draws
from fgdemo.data.scenes.geometry import Outline, box, crescent, ellipse, leaf, ribbon, ring, smooth, star
from fgdemo.data.scenes.painter import Mark, Piece
from fgdemo.data.scenes.palettes import CERISE, CORAL, GOLD, INDIGO, IVORY, Coat, bold_on, mix


def _body(d: Draws, coat: Coat, height: float) -> Piece:
    h = height * d.uniform(0.94, 1.06)
    outline = smooth(
        [
            (0.92, 0.04),
            (0.70, -0.34 * h),
            (0.24, -0.60 * h),
            (-0.30, -0.46 * h),
            (-0.76, -0.10),
            (-0.76, 0.10),
            (-0.30, 0.46 * h),
            (0.24, 0.60 * h),
            (0.70, 0.36 * h),
        ]
    )
    belly = smooth([(1.0, 0.14), (0.4, 0.22 * h), (-0.8, 0.10), (-0.5, 0.9 * h), (0.5, 0.9 * h)])
    marks = [*pattern(d, mix(coat.main, coat.second, 0.55), 0.7), Mark(belly, coat.pale)]
    return Piece([outline], coat.main, marks, relief=1.0, lift=0.30)


def _gill(coat: Coat, h: float) -> Mark:
    return Mark(ribbon([(0.42, -0.30 * h), (0.32, 0.0), (0.42, 0.32 * h)], 0.05, 0.05), mix(coat.main, coat.dark, 0.45))


def _rays(coat: Coat, root: tuple[float, float], tips: np.ndarray) -> list[Mark]:
    shade = mix(coat.second, coat.dark, 0.3)
    return [Mark(ribbon([root, tuple(t)], 0.02, 0.045, 1), shade) for t in tips]


def _fin(coat: Coat, outline: Outline, root: tuple[float, float], tips: list[tuple[float, float]]) -> Piece:
    return Piece([outline], coat.second, _rays(coat, root, np.asarray(tips)), relief=0.5, lift=0.2)


def _pectoral(coat: Coat, d: Draws) -> Piece:
    turn = d.uniform(125, 170)
    fin = leaf(0.26, 0.12, 0.44, 0.46, turn)
    return Piece([fin], mix(coat.second, coat.pale, 0.25), relief=0.5, lift=0.25)


def paper_carp(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Round, with a fan for a tail; one kind only, with a freckled cheek patch."""
    del subclass
    body = _body(d, coat, 1.10)
    fan = smooth([(-0.62, 0.0), (-0.98, -0.52), (-1.20, -0.34), (-1.26, 0.0), (-1.20, 0.34), (-0.98, 0.52)])
    back = smooth([(0.36, -0.46), (0.12, -0.86), (-0.30, -0.74), (-0.52, -0.30), (0.0, -0.4)])
    keel = smooth([(0.0, 0.44), (-0.18, 0.80), (-0.42, 0.66), (-0.36, 0.36)])
    body.marks += [
        _gill(coat, 1.1),
        Mark(ellipse(0.52, 0.20, 0.15), CORAL, True),
        *(
            Mark(ellipse(0.52 + x, 0.20 + y, 0.035, n=12), IVORY, True)
            for x, y in ((-0.06, -0.03), (0.05, -0.05), (0.0, 0.07))
        ),
    ]
    return Creature(
        [
            _fin(coat, fan, (-0.6, 0), [(-1.3, y) for y in (-0.42, -0.2, 0.0, 0.2, 0.42)]),
            _fin(coat, back, (0.1, -0.2), [(0.1, -1.0), (-0.18, -0.9), (-0.5, -0.7)]),
            _fin(coat, keel, (-0.1, 0.3), [(-0.2, 0.9), (-0.45, 0.7)]),
            body,
            _pectoral(coat, d),
            *round_eye(0.60, -0.14, 0.13),
        ],
        site=(0.52, 0.20, 0.18),
    )


def lantern_angler(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Carries a lantern on a rod over its brow; the lantern tells the subclasses apart."""
    body = _body(d, coat, 1.04)
    tail = smooth([(-0.62, 0.0), (-1.10, -0.46), (-1.22, -0.30), (-1.04, 0.0), (-1.22, 0.30), (-1.10, 0.46)])
    back = smooth([(0.06, -0.46), (-0.20, -0.74), (-0.46, -0.60), (-0.50, -0.28), (-0.2, -0.36)])
    keel = smooth([(0.0, 0.44), (-0.18, 0.72), (-0.42, 0.58), (-0.36, 0.32)])
    nod = d.uniform(-0.06, 0.06)
    x, y = 0.98 + nod, -0.74
    rod = ribbon([(0.40, -0.44), (0.56, -0.92 + nod / 2), (0.86 + nod, -0.96), (x, y - 0.08)], 0.085, 0.05)
    lanterns = [
        [Piece([star(x, y + 0.08, 0.30, 0.14)], GOLD, relief=0.5, lift=0.25)],
        [
            Piece(
                [ellipse(x, y + 0.08, 0.21)],
                GOLD,
                [Mark(ellipse(x, y + 0.08, 0.10), CORAL, True)],
                relief=0.7,
                lift=0.25,
            )
        ],
        [Piece([ring(x, y + 0.10, 0.25, 0.13)], CORAL, relief=0.5, lift=0.25)],
        [Piece([crescent(x, y + 0.08, 0.29, 0.0, 0.75)], CERISE, relief=0.5, lift=0.25)],
        [
            Piece([leaf(x, y - 0.12, 0.50, 0.44, t) for t in (60, 120)], CORAL, relief=0.5, lift=0.25),
        ],
    ]
    smile = ribbon([(0.98, 0.16), (0.74, 0.20), (0.58, 0.12)], 0.045, 0.035)
    body.marks += [Mark(smile, mix(coat.main, coat.dark, 0.7))]
    return Creature(
        [
            _fin(coat, tail, (-0.6, 0), [(-1.3, y) for y in (-0.42, -0.2, 0.2, 0.42)]),
            _fin(coat, back, (-0.1, -0.2), [(-0.2, -0.9), (-0.5, -0.7)]),
            _fin(coat, keel, (-0.1, 0.3), [(-0.2, 0.9), (-0.45, 0.7)]),
            Piece([rod], coat.dark, relief=0.3, lift=0.15),
            *as_part(lanterns[subclass]),
            body,
            _pectoral(coat, d),
            *round_eye(0.56, -0.14, 0.14),
        ],
        site=(x, y + 0.10, 0.42),
    )


def pennant_bream(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Tall, with a swept pennant on its back; the emblem on its flank tells the subclasses apart."""
    body = _body(d, coat, 1.22)
    trail = d.uniform(-0.08, 0.08)
    tail = smooth([(-0.62, 0.0), (-1.06, -0.36), (-1.14, -0.26), (-1.06, 0.0), (-1.14, 0.26), (-1.06, 0.36)])
    back = smooth(
        [(0.38, -0.52), (0.10, -0.92), (-0.74, -1.04 + trail), (-0.74, -1.04 + trail), (-0.38, -0.74), (-0.46, -0.34)]
    )
    keel = smooth(
        [(0.20, 0.56), (-0.02, 0.86), (-0.56, 0.98 - trail), (-0.56, 0.98 - trail), (-0.34, 0.68), (-0.40, 0.34)]
    )
    body.marks = [m for m in body.marks if m.colour == coat.pale]
    x, y = -0.14, -0.08
    emblems = [
        [Mark(ellipse(x, y, 0.24), IVORY, True), Mark(ellipse(x, y, 0.14), INDIGO, True)],
        [Mark(box(x + k, y, 0.05, 0.26), bold_on(coat.main), True) for k in (-0.17, 0.0, 0.17)],
        [
            Mark(
                ribbon([(x - 0.16 + k, y - 0.26), (x + 0.06 + k, y), (x - 0.16 + k, y + 0.26)], 0.10, 0.10, 1),
                bold_on(coat.main),
                True,
            )
            for k in (-0.06, 0.14)
        ],
    ]
    body.marks += [_gill(coat, 1.2), *emblems[subclass]]
    return Creature(
        [
            _fin(coat, tail, (-0.6, 0), [(-1.3, y) for y in (-0.36, 0.0, 0.36)]),
            _fin(coat, back, (0.2, -0.3), [(0.0, -1.0), (-0.4, -1.1), (-0.7, -0.9)]),
            _fin(coat, keel, (0.1, 0.3), [(0.0, 1.0), (-0.4, 1.1), (-0.6, 0.9)]),
            body,
            *round_eye(0.58, -0.16, 0.125),
        ],
        site=(x, y, 0.32),
    )
