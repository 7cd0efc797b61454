"""The page around a creature: ground, clutter behind it, leaves in front of it, and the light on all."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from fgdemo.data.scenes.draws import Draws
from fgdemo.data.scenes.geometry import box, ellipse, leaf, open_curve, ribbon, smooth
from fgdemo.data.scenes.painter import SIZE, SUPERSAMPLING, Painter, Piece, blur
from fgdemo.data.scenes.palettes import Backdrop, mix


@lru_cache(maxsize=32)
def ground(backdrop: Backdrop) -> Image.Image:
    """The backdrop's gradient from top to bottom; not to be painted on."""
    share = np.linspace(0, 1, SIZE * SUPERSAMPLING)[:, None]
    rows = np.asarray(backdrop.top) * (1 - share) + np.asarray(backdrop.bottom) * share
    pixels = np.broadcast_to(np.rint(rows).astype(np.uint8)[:, None], (len(share), len(share), 3))
    return Image.fromarray(np.ascontiguousarray(pixels))


def sprig(d: Draws, x: float, y: float, length: float, turn: float, tones: tuple, lift: float) -> list[Piece]:
    """A bent stem with pairs of leaves."""
    a = np.deg2rad(turn)
    along = np.array([np.cos(a), np.sin(a)])
    side = np.array([-along[1], along[0]])
    bend = d.uniform(-0.25, 0.25) * length
    root = np.array([x, y])
    stem = [root, root + along * length * 0.5 + side * bend * 0.5, root + along * length + side * bend * 0.1]
    path = open_curve(stem, 6)
    size = length * d.uniform(0.26, 0.36)
    slim = d.uniform(0.36, 0.6)
    leaves = []
    for i in range(2, len(path) - 1, 2):
        shrink = 1.15 - 0.5 * i / len(path)
        for way in (-1, 1):
            leaves.append(leaf(path[i][0], path[i][1], size * shrink, size * slim, turn + way * d.uniform(35, 60)))
    leaves.append(leaf(path[-2][0], path[-2][1], size * 0.9, size * slim, turn))
    colour = d.pick(tones)
    return [
        Piece([ribbon(stem, 1.6, 0.9)], mix(colour, (40, 50, 50), 0.15)),
        Piece(leaves, colour, relief=0.25, lift=lift),
    ]


def behind(d: Draws, painter: Painter, backdrop: Backdrop) -> None:
    """Discs, hills, sprigs, blades and pebbles behind the creature."""
    x, y, r = d.uniform(20, 108), d.uniform(16, 80), d.uniform(22, 46)
    painter.flat(ellipse(x, y, r, n=64), mix(backdrop.bottom, backdrop.disc, d.uniform(0.5, 1)))
    if d.chance(0.5):
        base, swell = d.uniform(84, 116), d.uniform(-12, 12)
        hill = [(-20, base), (30, base - swell), (80, base + swell), (150, base), (150, 150), (-20, 150)]
        painter.flat(smooth(hill, 10), mix(backdrop.bottom, backdrop.foliage[2], d.uniform(0.35, 0.8)))
    tones = tuple(mix(tone, backdrop.bottom, d.uniform(0.0, 0.45)) for tone in backdrop.foliage)
    for _ in range(d.integer(2, 4)):
        turn = d.uniform(-150, -30) if d.chance(0.7) else d.uniform(0, 360)
        root = (d.uniform(-8, 136), d.uniform(50, 136))
        for piece in sprig(d, *root, d.uniform(36, 76), turn, tones, 0.10):
            painter.piece(piece, is_object=False)
    for _ in range(d.integer(0, 7)):
        bx, lean, tall = d.uniform(0, 128), d.uniform(-18, 18), d.uniform(20, 62)
        blade = ribbon(
            [(bx, 134), (bx + lean * 0.3, 130 - tall * 0.5), (bx + lean, 130 - tall)], d.uniform(2.5, 6), 0.4
        )
        painter.flat(blade, d.pick(tones))
    for _ in range(d.integer(3, 12)):
        px, py, size = d.uniform(0, 128), d.uniform(0, 128), d.uniform(0.8, 3.4)
        kind, turn = d.integer(0, 2), d.uniform(0, 180)
        colour = mix(d.pick(tones), backdrop.disc, d.uniform(0, 0.7))
        if kind == 0:
            painter.flat(ellipse(px, py, size, n=16), colour)
        elif kind == 1:
            painter.flat(leaf(px, py, size * 3.4, size * 2.0, 2 * turn), colour)
        else:
            painter.flat(box(px, py, size, size * 0.8, turn), colour)


def in_front(
    d: Draws, painter: Painter, backdrop: Backdrop, centre: tuple[float, float], site: tuple[float, float, float]
) -> None:
    """One to three leaves or blades over the creature, clear of most of the site of its telling part.

    site: (x, y, radius) in pixels.
    """
    tones = tuple(mix(tone, (20, 30, 40), d.uniform(0.0, 0.35)) for tone in backdrop.foliage)
    for _ in range(d.integer(0, 3)):
        turn, reach = d.uniform(0, 360), d.uniform(30, 58)
        a = np.deg2rad(turn)
        aim = np.array([centre[0] + d.uniform(-26, 26), centre[1] + d.uniform(-26, 26)])
        root = aim - np.array([np.cos(a), np.sin(a)]) * reach * d.uniform(0.6, 1.0)
        kind, wide = d.integer(0, 2), d.uniform(0.22, 0.4)
        if kind == 0:
            pieces = [Piece([leaf(root[0], root[1], reach, reach * wide, turn)], d.pick(tones), relief=0.7, lift=0.3)]
        elif kind == 1:
            way = np.array([np.cos(a), np.sin(a)]) * reach * 1.4
            sway = np.array([-way[1], way[0]]) * d.uniform(-0.2, 0.2)
            path = [root, root + way * 0.5 + sway, root + way]
            pieces = [Piece([ribbon(path, 6 * wide / 0.4, 0.8)], d.pick(tones), relief=0.5, lift=0.3)]
        else:
            pieces = sprig(d, root[0], root[1], reach * 0.8, turn, tones, 0.25)
        if _hides(pieces, site):
            continue
        for piece in pieces:
            painter.piece(piece, is_object=False)


def _hides(pieces: list[Piece], site: tuple[float, float, float]) -> bool:
    """Whether some outline's vertices come within three quarters of the site's radius of its centre."""
    vertices = np.concatenate([o for p in pieces for o in p.outlines]) - site[:2]
    return bool(((vertices**2).sum(1) < (0.75 * site[2]) ** 2).any())


@lru_cache(maxsize=1)
def _plane() -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2) / np.float32(SIZE / 2)
    return axis[None, :], axis[:, None]


def lit(d: Draws, picture: np.ndarray, light: tuple[float, float]) -> np.ndarray:
    """Uint8 picture under a slanting light, a tint, a cast shadow and some exposure."""
    across, down = _plane()
    slope = d.uniform(0.05, 0.24)
    field = 1 + np.float32(slope * light[0]) * across + np.float32(slope * light[1]) * down
    field = field - np.float32(d.uniform(0.02, 0.10)) * (across**2 + down**2)
    depth, radius = d.uniform(0.10, 0.22), d.integer(5, 9)
    angle, where, width = d.uniform(-1, 1), d.uniform(-0.9, 0.9), d.uniform(0.12, 0.35)
    if d.chance(0.35):
        band = np.abs(across + np.float32(angle) * down - np.float32(where)) < np.float32(width)
        field = field * (
            1 - np.float32(depth) * blur(np.pad(band, 32, mode="edge") * np.uint8(255), radius)[32:-32, 32:-32]
        )
    tint = np.array(
        [1 + d.uniform(-0.07, 0.07), 1 + d.uniform(-0.03, 0.03), 1 + d.uniform(-0.08, 0.08)], dtype=np.float32
    )
    exposure, contrast = np.float32(d.uniform(0.86, 1.0)), np.float32(d.uniform(0.9, 1.06))
    out = picture * field[..., None] * (tint * exposure)
    out = (out - np.float32(128)) * contrast + np.float32(128)
    return np.rint(np.clip(out, 0, 255)).astype(np.uint8)
