"""One picture of the data set from its keys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgdemo.data.scenes import backdrop as page
from fgdemo.data.scenes.creature import Creature
from fgdemo.data.scenes.draws import Draws
from fgdemo.data.scenes.geometry import rotation
from fgdemo.data.scenes.painter import SIZE, Painter
from fgdemo.data.scenes.palettes import Coat, draw_backdrop, draw_coat
from fgdemo.data.scenes.species import SPECIES

_MARGIN = 4.0


@dataclass(frozen=True)
class Scene:
    """image (128, 128, 3) uint8; mask (128, 128) bool, what is seen of the creature; part_box (4,) float32
    x0, y0, x1, y1 in pixels, the extent of the telling part, hidden or not."""

    image: np.ndarray
    mask: np.ndarray
    part_box: np.ndarray


@dataclass(frozen=True)
class Posed:
    """A creature in pixel coordinates; site (x, y, radius) in pixels."""

    creature: Creature
    coat: Coat
    light: tuple[float, float]
    centre: tuple[float, float]
    site: tuple[float, float, float]

    def part_box(self) -> np.ndarray:
        """(4,) float32 extent x0, y0, x1, y1 of the telling part, cut off at the picture's edge."""
        points = np.concatenate(self.creature.part_outlines())
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
        return np.clip(box, 0, SIZE).astype(np.float32)


def pose(seed: int, index: int, class_id: int, subclass: int) -> Posed:
    """The creature of a picture where it stands; no draw depends on the subclass."""
    species = SPECIES[class_id]
    d = Draws(seed, index, "pose")
    coat = draw_coat(d)
    creature = species.build(Draws(seed, index, "creature"), coat, subclass)
    matrix = np.array([[d.sign(), 0.0], [d.uniform(-0.22, 0.22), d.uniform(0.86, 1.12)]])
    matrix = matrix @ rotation(d.uniform(-species.tilt, species.tilt))
    x, y, radius = creature.site
    rim = [(x - radius, y), (x + radius, y), (x, y - radius), (x, y + radius)]
    extent = np.concatenate([*creature.body_outlines(), np.asarray(rim)]) @ matrix
    low, high = extent.min(axis=0), extent.max(axis=0)
    scale = d.uniform(80, 116) / (high - low).max()
    low, high, matrix = low * scale, high * scale, matrix * scale
    corner = _MARGIN + (SIZE - 2 * _MARGIN - (high - low)) * (d.uniform(0, 1), d.uniform(0, 1))
    offset = corner - low
    angle = np.deg2rad(d.uniform(-150, -30))
    site = np.array([x, y]) @ matrix + offset
    centre = corner + (high - low) / 2
    return Posed(
        creature.transformed(matrix, offset),
        coat,
        (float(np.cos(angle)), float(np.sin(angle))),
        (float(centre[0]), float(centre[1])),
        (float(site[0]), float(site[1]), float(radius * scale)),
    )


def render(seed: int, index: int, class_id: int, subclass: int) -> Scene:
    """Draw one picture. The nuisances (pose, coat, light, clutter, leaves in front) depend on `seed` and
    `index` alone, so that two subclasses of a class differ in the telling part and its shadow only."""
    posed = pose(seed, index, class_id, subclass)
    d = Draws(seed, index, "page")
    backdrop = draw_backdrop(d, posed.coat)
    painter = Painter(page.ground(backdrop), posed.light)
    page.behind(d, painter, backdrop)
    for piece in posed.creature.pieces:
        painter.piece(piece, is_object=True)
    page.in_front(d, painter, backdrop, posed.centre, posed.site)
    image = page.lit(Draws(seed, index, "light"), painter.finish(), posed.light)
    return Scene(image, painter.cover > 0.5, posed.part_box())
