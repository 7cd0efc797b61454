"""Curated colours: coats for creatures, backdrops for the pages they are drawn on."""

from __future__ import annotations

from dataclasses import dataclass

from fgdemo.data.scenes.draws import Draws
from fgdemo.data.scenes.painter import Colour

INK: Colour = (38, 32, 48)
IVORY: Colour = (255, 247, 230)
CORAL: Colour = (238, 96, 74)
GOLD: Colour = (250, 186, 58)
LAGOON: Colour = (38, 168, 164)
CERISE: Colour = (222, 66, 134)
INDIGO: Colour = (72, 66, 150)
BLUSH: Colour = (246, 160, 150)


@dataclass(frozen=True)
class Coat:
    """Colours of one creature: main and second for the body, pale for bellies, dark for limbs, accent."""

    main: Colour
    second: Colour
    pale: Colour
    dark: Colour
    accent: Colour


@dataclass(frozen=True)
class Backdrop:
    """Colours of one page: ground from top to bottom, a disc behind, and three tones of foliage."""

    top: Colour
    bottom: Colour
    disc: Colour
    foliage: tuple[Colour, Colour, Colour]


def _rgb(text: str) -> Colour:
    return (int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16))


def _coat(text: str) -> Coat:
    return Coat(*(_rgb(t) for t in text.split()))


def _backdrop(text: str) -> Backdrop:
    top, bottom, disc, *foliage = (_rgb(t) for t in text.split())
    return Backdrop(top, bottom, disc, (foliage[0], foliage[1], foliage[2]))


COATS = tuple(
    _coat(t)
    for t in (
        "d0604a a83c40 f7d9b0 4a2430 f2b04a",  # terracotta
        "2f8f92 1d6672 cfeadb 14343f f0a35a",  # teal
        "e6a63a c27a2c fff1cd 553319 d9574a",  # mustard
        "8a5aa8 613a82 ecd6f2 30204a f3b24e",  # plum
        "7fa04a 55773f eaf0c0 2b3d24 e9794f",  # moss
        "de7f93 b4516f fde4de 552338 f4c062",  # rose
        "5b80b8 3c598e dbe7f6 20304f f2956a",  # slate
        "ecd9b6 cda878 fff9ea 6a5038 d8674f",  # cream
        "c9784f 8f5138 f6dcc0 452a22 5fae9f",  # chestnut
    )
)

BACKDROPS = tuple(
    _backdrop(t)
    for t in (
        "fdeadb f5ccb8 fff6ea d99a86 9fb18f eab39c",  # dawn
        "e3f3e7 bcdfce f4fbf1 86bb9f 63a088 a9d3b4",  # mint
        "e0eef9 b6d5ec f6fbff 93b9d6 7aa0c4 a5c9b4",  # sky
        "33456a 202b4d 4a5f8c 41597f 53739a 36597a",  # night
        "34564a 203a33 4c7563 4a7463 63907a 3b6152",  # forest
        "eee4f5 d3c2e8 fbf6ff b29bd0 9cb8a8 cbaedb",  # lilac
        "f7efdb e8d6b0 fffaee c7ac7a a6b78c dcbf92",  # sand
        "64527f 42365f 84709f 6f5c90 8f78ab 574873",  # dusk
        "2f6670 1f464f 478792 3f7f86 5a9c9c 336d76",  # lagoon
    )
)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b in a."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _luminance(c: Colour) -> float:
    return 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]


def bold_on(ground: Colour) -> Colour:
    """Ivory, or ink where the ground is too light for ivory to show."""
    return IVORY if _luminance(ground) < 180 else INK


def _distance(a: Colour, b: Colour) -> float:
    return abs(_luminance(a) - _luminance(b)) + 0.35 * sum(abs(x - y) for x, y in zip(a, b, strict=True))


def draw_coat(draws: Draws) -> Coat:
    """A curated coat, each colour moved a little."""
    coat = draws.pick(COATS)
    shift = [draws.uniform(-12, 12) for _ in range(3)]

    def moved(c: Colour) -> Colour:
        return tuple(min(255, max(0, round(v + s))) for v, s in zip(c, shift, strict=True))  # type: ignore[return-value]

    return Coat(moved(coat.main), moved(coat.second), coat.pale, coat.dark, coat.accent)


def draw_backdrop(draws: Draws, coat: Coat) -> Backdrop:
    """A curated backdrop among those the coat stands out from."""
    clear = [
        b
        for b in BACKDROPS
        if min(_distance(coat.main, b.bottom), _distance(coat.main, b.top)) > 105
        and _distance(coat.second, mix(b.top, b.bottom, 0.5)) > 60
    ]
    return draws.pick(clear)
