"""Orders of cells and deletion and insertion curves, by hand and by what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdemo.explain.curves import area_under, cell_counts, cell_of_pixel, deletion_insertion, lattice_order, order_by

GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9))


def one_cell(pictures: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """A classifier that reads one cell of a 2 x 2 grid: class c is as probable as cell c of 4 x 4 pixels is bright."""
    cells = pictures.mean(1).unflatten(1, (2, 2)).unflatten(3, (2, 2)).mean((2, 4)).flatten(1)
    return cells.gather(1, classes[:, None])[:, 0]


def curves_of(order: list[int], *, target: int = 2, steps: int = 4):
    images, fills = torch.full((1, 3, 4, 4), 0.75), torch.full((1, 3, 4, 4), 0.25)
    return deletion_insertion(
        one_cell,
        images,
        fills,
        torch.tensor([target]),
        np.array([[order]]),
        (2, 2),
        steps=steps,
        batch_size=3,
    )


def test_the_cell_that_counts_first_or_last() -> None:
    first, last = curves_of([2, 0, 1, 3]), curves_of([0, 1, 3, 2])
    assert first.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert first.deletion.tolist() == [[[0.75, 0.25, 0.25, 0.25, 0.25]]]
    assert first.insertion.tolist() == [[[0.25, 0.75, 0.75, 0.75, 0.75]]]
    assert last.deletion.tolist() == [[[0.75, 0.75, 0.75, 0.75, 0.25]]]
    assert last.insertion.tolist() == [[[0.25, 0.25, 0.25, 0.25, 0.75]]]
    # Trapezoids of width 1/4: one at (0.75 + 0.25) / 2, three at the level after or before.
    assert area_under(first.deletion, first.shares).item() == pytest.approx(0.25 * 0.5 + 0.75 * 0.25)
    assert area_under(last.deletion, last.shares).item() == pytest.approx(0.25 * 0.5 + 0.75 * 0.75)


def test_each_picture_has_its_own_class_and_orders() -> None:
    generator = torch.Generator().manual_seed(0)
    images, fills = torch.rand(2, 5, 3, 6, 10, generator=generator)
    orders = np.stack([[np.random.default_rng(10 * b + o).permutation(6) for o in range(3)] for b in range(5)])
    targets = torch.arange(5)
    grid = (2, 3)

    def probability(pictures: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return (pictures.mean((1, 2, 3)) + classes) / 10

    together = deletion_insertion(probability, images, fills, targets, orders, grid, steps=3, batch_size=7)
    assert together.deletion.shape == together.insertion.shape == (5, 3, 4)
    cell = cell_of_pixel((6, 10), grid).numpy()
    for b in range(5):
        for o in range(3):
            for step, count in enumerate(cell_counts(6, 3)):
                early = torch.from_numpy(np.isin(cell, orders[b, o, :count]))
                deleted = torch.where(early, fills[b], images[b]).mean()
                inserted = torch.where(early, images[b], fills[b]).mean()
                assert together.deletion[b, o, step] == pytest.approx((float(deleted) + b) / 10, abs=1e-6)
                assert together.insertion[b, o, step] == pytest.approx((float(inserted) + b) / 10, abs=1e-6)


def test_deletion_is_the_insertion_of_the_order_backwards() -> None:
    order = [3, 0, 2, 1]
    forwards, backwards = curves_of(order), curves_of(order[::-1])
    np.testing.assert_array_equal(forwards.deletion, backwards.insertion[..., ::-1])
    np.testing.assert_array_equal(forwards.insertion, backwards.deletion[..., ::-1])


def test_ends_are_the_intact_and_the_filled_picture() -> None:
    found = curves_of([1, 3, 0, 2])
    assert found.deletion[0, 0, [0, -1]].tolist() == [0.75, 0.25]
    assert found.insertion[0, 0, [0, -1]].tolist() == [0.25, 0.75]


def test_steps_of_a_curve() -> None:
    assert curves_of([0, 1, 2, 3], steps=2).shares.tolist() == [0, 0.5, 1]
    assert curves_of([0, 1, 2, 3], steps=16).shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curves_of([0, 1, 2, 3], steps=1).deletion.tolist() == [[[0.75, 0.25]]]


@given(GRIDS)
@settings(max_examples=40, deadline=None)
def test_lattice_holds_every_cell_once(grid: tuple[int, int]) -> None:
    assert sorted(lattice_order(grid).tolist()) == list(range(grid[0] * grid[1]))


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_lattice_spreads_evenly(side: int) -> None:
    """Among the first 4^i cells every square of side / 2^i has one."""
    order = lattice_order((side, side))
    for level in range(side.bit_length()):
        first = order[: 4**level]
        square = side // 2**level
        squares = (first // side // square) * 2**level + first % side // square
        assert sorted(squares.tolist()) == list(range(4**level))


@given(st.integers(1, 40), st.integers(1, 40), GRIDS)
@settings(max_examples=60, deadline=None)
def test_cells_divide_any_picture(height: int, width: int, grid: tuple[int, int]) -> None:
    cell = cell_of_pixel((height, width), grid).numpy()
    rows, columns = cell // grid[1], cell % grid[1]
    for axis, size, cells in ((rows[:, 0], height, grid[0]), (columns[0], width, grid[1])):
        assert (np.diff(axis) >= 0).all()
        # The cell whose span holds the pixel's centre.
        centre = (np.arange(size) + 0.5) / size * cells
        assert ((axis <= centre + 1e-9) & (centre <= axis + 1 + 1e-9)).all()
    assert (rows == rows[:, :1]).all()
    assert (columns == columns[:1]).all()


def test_cells_of_five_by_seven_pixels() -> None:
    expected = [[0, 0, 1, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 4, 5, 5]] * 3
    assert cell_of_pixel((5, 7), (2, 3)).tolist() == expected


def test_equal_cells_come_in_the_order_of_the_ties() -> None:
    importance = np.array([[1.0, 3.0, 1.0], [1.0, 0.0, 3.0]], dtype=np.float32)
    assert order_by(importance, np.arange(6)).tolist() == [1, 5, 0, 2, 3, 4]
    assert order_by(importance, np.arange(6)[::-1]).tolist() == [5, 1, 3, 2, 0, 4]


@given(st.integers(1, 300), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_counts_rise_from_none_to_all(cells: int, steps: int) -> None:
    counts = cell_counts(cells, steps)
    assert (counts[0], counts[-1], len(counts)) == (0, cells, min(cells, steps) + 1)
    assert np.ptp(np.diff(counts)) <= 1


def test_cells_that_lie_off_by_a_shift():
    """Cells of two pixels moved left and up by one; what none holds belongs to the last."""
    assert cell_of_pixel((1, 6), (1, 3), (-1.0, 0.0)).tolist() == [[0, 1, 1, 2, 2, 2]]
    assert cell_of_pixel((6, 1), (3, 1), (0.0, -1.0))[:, 0].tolist() == [0, 1, 1, 2, 2, 2]
    assert cell_of_pixel((1, 6), (1, 3)).tolist() == [[0, 0, 1, 1, 2, 2]]
