"""Deletion and insertion curves: how much the cells that an explanation names first matter to the network.

Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018, section 4.2.
Here the units are the cells of the explanation's grid instead of pixels, and both curves put the same filling in the
place of a cell that does not show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Curves(NamedTuple):
    """Probability of one class along P shares of the cells, for B pictures and O orders of their cells.

    shares: (P,) float64 from 0 to 1.
    deletion: (B, O, P) float64, with that share of the cells filled, the first of the order first.
    insertion: (B, O, P) float64, with that share shown in a picture that is filled everywhere else.
    """

    shares: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray


def cell_of_pixel(size: tuple[int, int], grid: tuple[int, int], shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """(H, W) int64: the cell, in raster order, that holds the centre of each pixel, where (h, w) cells divide H x W.

    With `shift`, x and y in pixels, all cells lie that far from there (`fgdemo.models.field.field_shift`), and pixels
    that none of them holds belong to the nearest.
    """
    rows, columns = (
        (((torch.arange(s).double() + 0.5 - moved) * g / s).floor().long()).clamp(0, g - 1)
        for s, g, moved in zip(size, grid, reversed(shift), strict=True)
    )
    return rows[:, None] * grid[1] + columns


def order_by(importance: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """(n,) cells, the most important first; among equals the one that comes first in `ties`, a permutation of them."""
    return ties[np.argsort(-importance.ravel()[ties], kind="stable")]


def lattice_order(grid: tuple[int, int]) -> np.ndarray:
    """(h w,) cells of a regular lattice from coarse to fine, so that every beginning spreads evenly over the grid.

    The first 4^i cells of a square grid of side 2^j lie 2^(j-i) apart; a grid of other sides is the corner of the next
    such square. Bayer, An optimum method for two-level rendition of continuous-tone pictures, ICC 1973.
    """
    y, x = np.indices(grid).reshape(2, -1)
    rank = np.zeros_like(y)
    for bit in range((max(grid) - 1).bit_length()):
        down, across = y >> bit & 1, x >> bit & 1
        rank = 4 * rank + 2 * (down ^ across) + down
    return np.argsort(rank)


def cell_counts(cells: int, steps: int) -> np.ndarray:
    """(P,) int64 numbers of cells from 0 to `cells` at which curves are taken, as evenly as `steps` steps can be."""
    return np.unique(np.rint(np.linspace(0, cells, steps + 1)).astype(np.int64))


@torch.inference_mode()
def deletion_insertion(
    probability: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    fills: Tensor,
    targets: Tensor,
    orders: np.ndarray,
    grid: tuple[int, int],
    *,
    steps: int,
    batch_size: int,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Curves:
    """Both curves of every order of every picture, over one batch after another of masked pictures.

    Memory: one batch of `batch_size` masked pictures beside the arguments.

    Args:
        probability: (n, 3, H, W) pictures and (n,) int64 classes -> (n,) probabilities.
        images, fills: (B, 3, H, W), preprocessed pictures and what shows in the place of their cells.
        targets: (B,) int64 classes whose probability is followed.
        orders: (B, O, h w) permutations of the cells.
        shift: x, y in pixels, of the cells from where they divide the picture.
    """
    pictures, kinds, cells = orders.shape
    counts = cell_counts(cells, steps)
    inner = counts[1:-1]
    # A cell shows where its place in the order is not below the count (deletion), or is (insertion). No picture is
    # needed twice: of both ends, the intact and the filled one, every picture has one for all of its orders.
    places = torch.from_numpy(np.argsort(orders, axis=2)).to(images.device)
    picture, kind, count, insert = (
        torch.from_numpy(axis.ravel())
        for axis in np.meshgrid(np.arange(pictures), np.arange(kinds), inner, [False, True], indexing="ij")
    )
    every = torch.arange(pictures)
    picture = torch.cat([picture, every, every])
    kind = F.pad(kind, (0, 2 * pictures))
    count = torch.cat([count, torch.zeros_like(every), torch.full_like(every, cells)])
    insert = F.pad(insert, (0, 2 * pictures))
    cell = cell_of_pixel(images.shape[-2:], grid, shift).to(images.device)
    found: list[Tensor] = []
    for rows in torch.arange(len(picture)).split(batch_size):
        row, number, shown = (axis[rows].to(images.device) for axis in (picture, count, insert))
        early = places[row, kind[rows].to(images.device)] < number[:, None]
        filled = (early ^ shown[:, None])[:, cell][:, None]
        found.append(probability(torch.where(filled, fills[row], images[row]), targets[row]).cpu().double())
    values = torch.cat(found).numpy()
    middle = values[: -2 * pictures].reshape(pictures, kinds, len(inner), 2)
    intact, empty = (np.repeat(end[:, None, None], kinds, axis=1) for end in values[-2 * pictures :].reshape(2, -1))
    deletion = np.concatenate([intact, middle[..., 0], empty], axis=2)
    insertion = np.concatenate([empty, middle[..., 1], intact], axis=2)
    return Curves(counts / cells, deletion, insertion)


def area_under(curves: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Trapezoid rule along the last axis; shares from 0 to 1 and probabilities give areas from 0 to 1."""
    return np.trapezoid(curves, shares, axis=-1)
