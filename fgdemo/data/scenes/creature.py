"""What every family of creatures shares: the creature itself, eyes, plumage patterns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgdemo.data.scenes.draws import Draws
from fgdemo.data.scenes.geometry import Outline, ellipse, ribbon
from fgdemo.data.scenes.painter import Colour, Mark, Piece
from fgdemo.data.scenes.palettes import INK, IVORY, Coat, mix


@dataclass
class Creature:
    """Pieces from back to front, in the creature's own coordinates (about -1..1, y down).

    site: (x, y, radius) of a disc that holds the telling part of every subclass.
    """

    pieces: list[Piece]
    site: tuple[float, float, float]

    def part_outlines(self) -> list[Outline]:
        """Outlines of the telling part; a marking is cut off at the bounds of the piece it lies on."""
        own = [o for p in self.pieces if p.part for o in p.outlines]
        for piece in self.pieces:
            marks = [m.outline for m in piece.marks if m.part]
            if marks:
                edge = np.concatenate(piece.outlines)
                own += [m.clip(edge.min(axis=0), edge.max(axis=0)) for m in marks]
        return own

    def body_outlines(self) -> list[Outline]:
        return [o for p in self.pieces if not p.part for o in p.outlines]

    def transformed(self, matrix: np.ndarray, offset: np.ndarray) -> Creature:
        return Creature([p.transformed(matrix, offset) for p in self.pieces], self.site)


def as_part(pieces: list[Piece]) -> list[Piece]:
    """Declare pieces to be the telling part."""
    for piece in pieces:
        piece.part = True
    return pieces


def round_eye(x: float, y: float, radius: float) -> list[Piece]:
    """A bright eye with a glint."""
    return [
        Piece(
            [ellipse(x, y, radius)],
            IVORY,
            [
                Mark(ellipse(x + 0.12 * radius, y, 0.66 * radius), INK),
                Mark(ellipse(x + 0.34 * radius, y - 0.26 * radius, 0.22 * radius), IVORY),
            ],
            lift=0.12,
        )
    ]


def pattern(d: Draws, colour: Colour, extent: float) -> list[Mark]:
    """A faint pattern (plain, bands or dots) that says nothing about class or subclass."""
    kind = d.integer(0, 2)
    phase, slant = d.uniform(0, 0.3), d.uniform(-0.25, 0.25)
    if kind == 0:
        return []
    places = np.arange(-extent, extent, 0.3) + phase
    if kind == 1:
        return [Mark(ribbon([(x, -1.2), (x + slant, 1.2)], 0.08, 0.08, 1), colour) for x in places]
    return [
        Mark(ellipse(x, y + slant * (i % 2), 0.055, n=12), colour)
        for i, x in enumerate(places)
        for y in np.arange(-extent, extent, 0.3)
    ]


def feathering(d: Draws, coat: Coat) -> list[Mark]:
    """Two darker feather edges on a wing, sometimes a lighter shoulder."""
    dark = mix(coat.second, coat.dark, 0.35)
    marks = [
        Mark(ribbon([(0.05, 0.16 + s), (-0.4, 0.14 + s), (-0.9, 0.10 + s)], 0.045, 0.03), dark) for s in (-0.02, 0.09)
    ]
    if d.chance(0.5):
        marks.insert(0, Mark(ellipse(0.12, -0.06, 0.2, 0.14), mix(coat.second, coat.main, 0.6)))
    return marks
