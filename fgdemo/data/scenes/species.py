"""The plan of the data set: its classes, their hidden subclasses and how often each occurs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fgdemo.data.scenes import beetles, birds, fish, moths
from fgdemo.data.scenes.creature import Creature
from fgdemo.data.scenes.draws import Draws
from fgdemo.data.scenes.palettes import Coat


@dataclass(frozen=True)
class Species:
    """One class. build(draws, coat, subclass) draws the same creature for every subclass, the part apart.

    tilt: largest rotation in degrees either way; subclasses: name of each, with its share of the pictures.
    """

    name: str
    build: Callable[[Draws, Coat, int], Creature]
    tilt: float
    subclasses: tuple[tuple[str, float], ...]


SPECIES: tuple[Species, ...] = (
    Species(
        "bramble wren", birds.bramble_wren, 24, (("curled crest", 0.45), ("fan crest", 0.35), ("horned crest", 0.2))
    ),
    Species("harbour finch", birds.harbour_finch, 24, (("eyed wing", 0.6), ("barred wing", 0.4))),
    Species(
        "ribbon drongo",
        birds.ribbon_drongo,
        24,
        (("disc tail", 0.3), ("heart tail", 0.3), ("star tail", 0.22), ("ring tail", 0.18)),
    ),
    Species("paper carp", fish.paper_carp, 36, (("freckled cheek", 1.0),)),
    Species(
        "lantern angler",
        fish.lantern_angler,
        30,
        (
            ("star lantern", 0.25),
            ("lamp lantern", 0.22),
            ("ring lantern", 0.2),
            ("moon lantern", 0.17),
            ("leaf lantern", 0.16),
        ),
    ),
    Species(
        "pennant bream", fish.pennant_bream, 36, (("eyed flank", 0.45), ("barred flank", 0.33), ("arrow flank", 0.22))
    ),
    Species("dusk emperor", moths.dusk_emperor, 50, (("banded abdomen", 0.58), ("beaded abdomen", 0.42))),
    Species(
        "swallow moth",
        moths.swallow_moth,
        50,
        (("clubbed antennae", 0.34), ("feathered antennae", 0.28), ("coiled antennae", 0.22), ("pearl antennae", 0.16)),
    ),
    Species("lace owlet", moths.lace_owlet, 50, (("star thorax", 0.4), ("heart thorax", 0.35), ("moon thorax", 0.25))),
    Species(
        "forge beetle",
        beetles.forge_beetle,
        50,
        (("spike horn", 0.25), ("fork horn", 0.22), ("moon horn", 0.2), ("mallet horn", 0.18), ("leaf horn", 0.15)),
    ),
    Species("pond roller", beetles.pond_roller, 50, (("starred collar", 1.0),)),
    Species("fiddle longhorn", beetles.fiddle_longhorn, 50, (("eyed shell", 0.55), ("chevron shell", 0.45))),
)
