"""Outlines in the plane: every shape is a (V, 2) float64 array of vertices, y pointing down."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Outline = np.ndarray


@lru_cache(maxsize=8)
def _unit_circle(n: int) -> np.ndarray:
    angle = np.arange(n) * (2 * np.pi / n)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@lru_cache(maxsize=8)
def _spline_basis(steps: int) -> np.ndarray:
    t = np.arange(steps) / steps
    return 0.5 * np.stack(
        [-(t**3) + 2 * t**2 - t, 3 * t**3 - 5 * t**2 + 2, -3 * t**3 + 4 * t**2 + t, t**3 - t**2], axis=1
    )


@lru_cache(maxsize=64)
def _ring_of_four(n: int) -> np.ndarray:
    """(n, 4) rows i-1, i, i+1, i+2 modulo n."""
    return (np.arange(n)[:, None] + np.arange(-1, 3)) % n


def rotation(degrees: float) -> np.ndarray:
    """(2, 2) matrix turning row vectors: `points @ rotation(d)` turns clockwise on a screen."""
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])


def ellipse(x: float, y: float, rx: float, ry: float | None = None, turn: float = 0.0, n: int = 32) -> Outline:
    """Ellipse about (x, y); `turn` in degrees."""
    points = _unit_circle(n) * (rx, rx if ry is None else ry)
    return (points @ rotation(turn) if turn else points) + (x, y)


def smooth(points: Sequence[Sequence[float]], steps: int = 7) -> Outline:
    """Closed Catmull-Rom curve through `points`; a point given twice makes a corner there."""
    p = np.asarray(points, dtype=np.float64)
    return (_spline_basis(steps) @ p[_ring_of_four(len(p))]).reshape(-1, 2)


def open_curve(points: Sequence[Sequence[float]], steps: int = 6) -> np.ndarray:
    """Open Catmull-Rom curve through `points`, both ends included."""
    given = np.asarray(points, dtype=np.float64)
    n = len(given)
    p = np.empty((n + 2, 2))
    p[1:-1], p[0], p[-1] = given, 2 * given[0] - given[1], 2 * given[-1] - given[-2]
    curve = np.empty(((n - 1) * steps + 1, 2))
    curve[:-1] = (_spline_basis(steps) @ p[_ring_of_four(n + 2)[1:-2]]).reshape(-1, 2)
    curve[-1] = given[-1]
    return curve


def ribbon(points: Sequence[Sequence[float]], start: float, end: float, steps: int = 6) -> Outline:
    """Band along the curve through `points`, `start` wide at its first point and `end` wide at its last."""
    path = open_curve(points, steps)
    step = path[1:] - path[:-1]
    side = np.empty_like(path)
    side[1:-1] = step[1:] + step[:-1]
    side[0], side[-1] = step[0], step[-1]
    half = np.linspace(start, end, len(path)) / 2
    side = side[:, ::-1] * (half / np.maximum(np.sqrt((side**2).sum(axis=1)), 1e-9))[:, None] * (-1.0, 1.0)
    return np.concatenate([path + side, (path - side)[::-1]])


@lru_cache(maxsize=1)
def _unit_leaf() -> np.ndarray:
    return smooth([(0, 0), (0, 0), (0.28, 0.42), (0.62, 0.40), (1, 0), (1, 0), (0.62, -0.40), (0.28, -0.42)], 4)


def leaf(x: float, y: float, length: float, width: float, turn: float) -> Outline:
    """Pointed leaf growing from (x, y) in the direction `turn` (degrees, 0 = right, 90 = down)."""
    return place(_unit_leaf() * (length, width), x, y, turn)


def star(x: float, y: float, outer: float, inner: float, points: int = 5, turn: float = -90.0) -> Outline:
    """Star polygon with `points` tips."""
    radius = np.where(np.arange(2 * points) % 2 == 0, outer, inner)[:, None]
    return (_unit_circle(2 * points) * radius) @ rotation(turn) + (x, y)


def heart(x: float, y: float, size: float, turn: float = 0.0) -> Outline:
    """Heart about (x, y) with its tip pointing down at `turn` 0."""
    half = [(0, 1.0), (0, 1.0), (0.62, 0.35), (0.95, -0.25), (0.6, -0.75), (0.12, -0.5), (0, -0.3)]
    points = half + [(-px, py) for px, py in half[-2:1:-1]]
    return place(smooth(np.asarray(points) * size, 4), x, y, turn)


def crescent(x: float, y: float, size: float, turn: float = 0.0, bite: float = 0.55) -> Outline:
    """Crescent whose horns point right at `turn` 0."""
    outer = _unit_circle(32)[5:28]
    inner = outer[::-1] * (1 - bite, 1.0)
    return place(np.concatenate([outer, inner]) * size, x, y, turn)


def ring(x: float, y: float, outer: float, inner: float) -> Outline:
    """Ring as one outline (outer circle, a cut, inner circle backwards)."""
    circle = np.concatenate([_unit_circle(32), _unit_circle(32)[:1]])
    return np.concatenate([circle * outer, circle[::-1] * inner]) + np.array([x, y])


def box(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Outline:
    """Rectangle about (x, y) with half sides rx, ry."""
    return place(np.array([(-rx, -ry), (rx, -ry), (rx, ry), (-rx, ry)]), x, y, turn)


def place(points: np.ndarray, x: float, y: float, turn: float = 0.0) -> Outline:
    """Turn by `turn` degrees about the origin, then move the origin to (x, y)."""
    return points @ rotation(turn) + (x, y)


def mirror(points: np.ndarray) -> Outline:
    """Reflection in the vertical axis."""
    return points * (-1.0, 1.0)
