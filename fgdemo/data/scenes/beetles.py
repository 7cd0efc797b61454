"""Three look-alike beetles, seen from above, facing up."""

from __future__ import annotations

from fgdemo.data.scenes.creature import Creature, as_part
from fgdemo.data.scenes.draws import Draws
from fgdemo.data.scenes.geometry import Outline, crescent, ellipse, leaf, mirror, ribbon, smooth, star
from fgdemo.data.scenes.painter import Mark, Piece
from fgdemo.data.scenes.palettes import CERISE, CORAL, GOLD, INK, IVORY, Coat, bold_on, mix


def _both(outline: Outline) -> list[Outline]:
    return [outline, mirror(outline)]


def _legs(d: Draws, coat: Coat, width: float, reach: float) -> Piece:
    outlines = []
    for y, lift in ((-0.30, -0.26), (0.08, 0.06), (0.42, 0.36)):
        bend = lift + d.uniform(-0.05, 0.05)
        leg = [(0.5 * width, y), (width + 0.55 * reach, y + 0.4 * bend), (width + reach, y + bend + 0.10)]
        outlines += _both(ribbon(leg, 0.10, 0.05))
    return Piece(outlines, coat.dark, lift=0.18)


def _shell(d: Draws, coat: Coat, outline: Outline) -> Piece:
    """Wing cases with a seam and a random sprinkle that says nothing about class or subclass."""
    soft = mix(coat.main, coat.pale, 0.55)
    kind, size = d.integer(0, 2), d.uniform(0.05, 0.085)
    marks = [Mark(ribbon([(0, -0.6), (0, 1.2)], 0.045, 0.045, 1), coat.dark)]
    if kind == 1:
        spots = [(0.20, -0.10), (0.34, 0.20), (0.16, 0.34)]
        marks += [Mark(o, soft) for x, y in spots for o in _both(ellipse(x, y, size, n=20))]
    if kind == 2:
        marks += [Mark(o, soft) for o in _both(ribbon([(0.22, -0.5), (0.26, 0.2), (0.14, 0.9)], size, size * 0.7))]
    return Piece([outline], coat.main, marks, relief=1.15, lift=0.32)


def _collar(coat: Coat, width: float, y: float, height: float) -> Piece:
    outline = smooth(
        [
            (0, y - height),
            (0.8 * width, y - 0.7 * height),
            (width, y + 0.5 * height),
            (0, y + 0.8 * height),
            (-width, y + 0.5 * height),
            (-0.8 * width, y - 0.7 * height),
        ]
    )
    return Piece([outline], coat.second, relief=0.9, lift=0.25)


def _head(coat: Coat, y: float, radius: float) -> list[Piece]:
    return [
        Piece([ellipse(0, y, radius, radius * 0.85)], coat.dark, relief=0.9, lift=0.2),
        Piece([ellipse(s * radius * 0.72, y - radius * 0.28, radius * 0.26, n=16) for s in (1, -1)], IVORY, lift=0.1),
        Piece([ellipse(s * radius * 0.72, y - radius * 0.34, radius * 0.15, n=12) for s in (1, -1)], INK),
    ]


def _feelers(coat: Coat, y: float, spread: float, length: float) -> Piece:
    path = [(0.08, y), (0.22 + 0.3 * spread, y - 0.6 * length), (0.26 + spread, y - length)]
    return Piece(_both(ribbon(path, 0.05, 0.045)), coat.dark, lift=0.12)


def forge_beetle(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Broad, with a horn; the horn tells the subclasses apart."""
    w = 0.56 * d.uniform(0.95, 1.05)
    shell = smooth(
        [
            (0, -0.34),
            (0.7 * w, -0.30),
            (w, 0.10),
            (0.8 * w, 0.62),
            (0, 0.88),
            (-0.8 * w, 0.62),
            (-w, 0.10),
            (-0.7 * w, -0.30),
        ]
    )
    y = -0.72
    horns = [
        [
            Piece(
                [
                    smooth(
                        [(0.10, y), (0.06, y - 0.28), (0.0, y - 0.52), (0.0, y - 0.52), (-0.06, y - 0.28), (-0.10, y)]
                    )
                ],
                CORAL,
                relief=0.6,
                lift=0.2,
            )
        ],
        [
            Piece(
                [
                    ribbon([(0, y + 0.05), (0, y - 0.2)], 0.14, 0.12),
                    *_both(ribbon([(0, y - 0.14), (0.17, y - 0.28), (0.21, y - 0.52)], 0.12, 0.05)),
                ],
                GOLD,
                relief=0.6,
                lift=0.2,
            )
        ],
        [Piece([crescent(0, y - 0.18, 0.34, -90.0, 0.7)], CERISE, relief=0.6, lift=0.2)],
        [
            Piece(
                [ribbon([(0, y + 0.05), (0, y - 0.26)], 0.13, 0.10), ellipse(0, y - 0.36, 0.19)],
                CORAL,
                relief=0.7,
                lift=0.2,
            )
        ],
        [Piece([leaf(0, y + 0.05, 0.58, 0.26, t) for t in (-130, -90, -50)], GOLD, relief=0.5, lift=0.2)],
    ]
    return Creature(
        [
            _legs(d, coat, w, 0.34),
            *as_part(horns[subclass]),
            *_head(coat, -0.66, 0.22),
            _shell(d, coat, shell),
            _collar(coat, 0.44, -0.42, 0.22),
        ],
        site=(0.0, y - 0.24, 0.44),
    )


def pond_roller(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Nearly circular, with short feelers; one kind only, with a crown on its collar."""
    del subclass
    w = 0.66 * d.uniform(0.95, 1.05)
    shell = ellipse(0, 0.18, w, 0.66)
    collar = _collar(coat, 0.46, -0.44, 0.24)
    collar.marks = [Mark(star(0, -0.42, 0.17, 0.09, 6), bold_on(coat.second), True)]
    return Creature(
        [
            _legs(d, coat, w - 0.04, 0.28),
            _feelers(coat, -0.76, d.uniform(0.06, 0.14), 0.28),
            *_head(coat, -0.70, 0.21),
            _shell(d, coat, shell),
            collar,
        ],
        site=(0.0, -0.42, 0.20),
    )


def fiddle_longhorn(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Narrow and waisted, with long feelers; the badge at the end of its shell tells the subclasses apart."""
    w = 0.44 * d.uniform(0.95, 1.05)
    shell = smooth(
        [
            (0, -0.36),
            (0.9 * w, -0.30),
            (0.86 * w, 0.10),
            (w, 0.56),
            (0, 0.98),
            (-w, 0.56),
            (-0.86 * w, 0.10),
            (-0.9 * w, -0.30),
        ]
    )
    body = _shell(d, coat, shell)
    badges = [
        [Mark(ellipse(0, 0.56, 0.25), IVORY, True), Mark(ellipse(0, 0.56, 0.13), CORAL, True)],
        [
            Mark(ribbon([(-0.42, 0.46 + k), (0, 0.62 + k), (0.42, 0.46 + k)], 0.10, 0.10, 1), bold_on(coat.main), True)
            for k in (-0.10, 0.10)
        ],
    ]
    body.marks += badges[subclass]
    return Creature(
        [
            _legs(d, coat, w, 0.36),
            _feelers(coat, -0.76, d.uniform(0.28, 0.42), 0.52),
            *_head(coat, -0.68, 0.20),
            body,
            _collar(coat, 0.32, -0.44, 0.20),
        ],
        site=(0.0, 0.56, 0.34),
    )
