"""Three look-alike moths, seen from above, facing up."""

from __future__ import annotations

from fgdemo.data.scenes.creature import Creature, as_part
from fgdemo.data.scenes.draws import Draws
from fgdemo.data.scenes.geometry import Outline, crescent, ellipse, heart, leaf, mirror, ribbon, smooth, star
from fgdemo.data.scenes.painter import Colour, Mark, Piece
from fgdemo.data.scenes.palettes import CERISE, CORAL, GOLD, INK, IVORY, Coat, mix


def _both(outline: Outline) -> list[Outline]:
    return [outline, mirror(outline)]


def _wing(outline: Outline, colour: Colour, marks: list[tuple[Outline, Colour]], lift: float) -> Piece:
    both = [Mark(o, c) for outline_, c in marks for o in _both(outline_)]
    return Piece(_both(outline), colour, both, relief=0.7, lift=lift)


def _markings(d: Draws, coat: Coat, x: float, y: float) -> list[tuple[Outline, Colour]]:
    """Border, bands or eyespots at random: they say nothing about class or subclass."""
    soft = mix(coat.main, coat.pale, 0.65)
    kind = d.integer(0, 2)
    size = d.uniform(0.10, 0.16)
    if kind == 0:
        return [(ellipse(x, y, size), soft), (ellipse(x, y, size * 0.55), coat.dark)]
    if kind == 1:
        return [(ribbon([(x - 0.16, y - 0.5), (x - 0.04, y), (x - 0.16, y + 0.5)], 0.09, 0.09), soft)]
    return [(ellipse(x + 0.1 * k, y - 0.17 + 0.17 * k, size * 0.4, n=16), soft) for k in range(3)]


def _torso(coat: Coat, abdomen: list[Mark], thorax: list[Mark]) -> list[Piece]:
    fur = mix(coat.dark, coat.main, 0.25)
    return [
        Piece(
            [smooth([(0.0, -0.10), (0.15, 0.10), (0.13, 0.44), (0.0, 0.72), (-0.13, 0.44), (-0.15, 0.10)])],
            fur,
            abdomen,
            relief=0.9,
            lift=0.3,
        ),
        Piece([ellipse(0, -0.40, 0.12)], mix(coat.dark, coat.main, 0.1), relief=0.7, lift=0.2),
        Piece([ellipse(0, -0.14, 0.19, 0.25)], mix(coat.second, coat.dark, 0.3), thorax, relief=0.9, lift=0.3),
        Piece([ellipse(s * 0.085, -0.45, 0.05, n=16) for s in (1, -1)], INK),
    ]


def _plain_antennae(coat: Coat, spread: float) -> Piece:
    return Piece(
        _both(ribbon([(0.05, -0.46), (0.16, -0.72), (0.30 + spread, -0.86)], 0.05, 0.04)), coat.dark, lift=0.12
    )


def dusk_emperor(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Forewings drawn out to hooked points; the abdomen's markings tell the subclasses apart."""
    reach = d.uniform(-0.05, 0.05)
    fore = smooth(
        [
            (0.08, -0.30),
            (0.62, -0.72 + reach),
            (1.14, -0.66 + reach),
            (1.14, -0.66 + reach),
            (0.94, -0.30),
            (0.98, 0.06),
            (0.50, 0.08),
            (0.08, 0.04),
        ]
    )
    hind = smooth([(0.08, -0.04), (0.62, -0.02), (0.84, 0.28), (0.62, 0.66), (0.28, 0.56), (0.10, 0.30)])
    abdomens = [
        [Mark(ellipse(0, 0.14 + 0.19 * k, 0.17, 0.055), GOLD, True) for k in range(3)],
        [Mark(ellipse(0, 0.14 + 0.17 * k, 0.075 - 0.01 * k), IVORY, True) for k in range(3)],
    ]
    return Creature(
        [
            _plain_antennae(coat, d.uniform(-0.05, 0.05)),
            _wing(hind, coat.second, _markings(d, coat, 0.52, 0.34), 0.25),
            _wing(fore, coat.main, _markings(d, coat, 0.72, -0.32), 0.3),
            *_torso(coat, abdomens[subclass], []),
        ],
        site=(0.0, 0.33, 0.34),
    )


def swallow_moth(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Hindwings drawn out into tails; the antennae tell the subclasses apart."""
    reach = d.uniform(-0.05, 0.05)
    fore = smooth(
        [(0.08, -0.30), (0.62, -0.70), (1.02, -0.62 + reach), (1.06, -0.36), (0.80, -0.02), (0.40, 0.08), (0.08, 0.04)]
    )
    hind = smooth(
        [
            (0.08, -0.02),
            (0.60, 0.0),
            (0.76, 0.28),
            (0.60, 0.56),
            (0.62, 1.0 + reach),
            (0.48, 1.0 + reach),
            (0.40, 0.58),
            (0.10, 0.34),
        ]
    )
    antennae = [
        [
            Piece(_both(ribbon([(0.04, -0.46), (0.12, -0.72), (0.22, -0.86)], 0.05, 0.05)), coat.dark),
            Piece(_both(ellipse(0.25, -0.93, 0.13)), CORAL, relief=0.6, lift=0.2),
        ],
        [Piece(_both(leaf(0.03, -0.46, 0.64, 0.30, -64.0)), GOLD, relief=0.5, lift=0.2)],
        [
            Piece(
                _both(ribbon([(0.04, -0.46), (0.12, -0.82), (0.38, -0.98), (0.50, -0.80), (0.38, -0.70)], 0.08, 0.07)),
                CERISE,
                lift=0.15,
            )
        ],
        [
            Piece(
                [o for k in range(4) for o in _both(ellipse(0.07 + 0.09 * k, -0.54 - 0.12 * k, 0.075))],
                CORAL,
                relief=0.5,
                lift=0.15,
            )
        ],
    ]
    return Creature(
        [
            _wing(hind, coat.second, _markings(d, coat, 0.50, 0.30), 0.25),
            _wing(fore, coat.main, _markings(d, coat, 0.70, -0.34), 0.3),
            *as_part(antennae[subclass]),
            *_torso(coat, [], []),
        ],
        site=(0.0, -0.74, 0.58),
    )


def lace_owlet(d: Draws, coat: Coat, subclass: int) -> Creature:
    """Rounded, scalloped wings; the emblem on its thorax tells the subclasses apart."""
    puff = d.uniform(-0.04, 0.04)
    fore = smooth(
        [
            (0.08, -0.30),
            (0.56, -0.76),
            (0.94, -0.66 + puff),
            (0.92, -0.44),
            (1.06, -0.26),
            (0.92, -0.10),
            (0.92, 0.10),
            (0.52, 0.12),
            (0.08, 0.04),
        ]
    )
    hind = smooth(
        [
            (0.08, -0.04),
            (0.60, 0.02),
            (0.84, 0.16),
            (0.76, 0.36),
            (0.78, 0.58),
            (0.54, 0.60),
            (0.38, 0.78),
            (0.24, 0.56),
            (0.10, 0.30),
        ]
    )
    emblems = [
        [Mark(star(0, -0.13, 0.24, 0.10), GOLD, True)],
        [Mark(heart(0, -0.15, 0.19), CORAL, True)],
        [Mark(crescent(0, -0.12, 0.19, -90.0, 0.75), IVORY, True)],
    ]
    torso = _torso(coat, [], emblems[subclass])
    torso[2].outlines = [ellipse(0, -0.14, 0.27, 0.29)]
    torso[2].colour = mix(coat.dark, coat.main, 0.12)
    return Creature(
        [
            _plain_antennae(coat, d.uniform(-0.05, 0.05)),
            _wing(hind, coat.second, _markings(d, coat, 0.50, 0.34), 0.25),
            _wing(fore, coat.main, _markings(d, coat, 0.68, -0.30), 0.3),
            *torso,
        ],
        site=(0.0, -0.14, 0.26),
    )
