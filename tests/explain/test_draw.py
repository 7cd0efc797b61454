"""Where and in which colour maps land on pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fgdemo.errors import UserError
from fgdemo.explain.draw import COLORMAPS, block_colors, color_bar, color_table, mark_candidates, overlay
from fgdemo.explain.voting_trace import Candidate


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8))


def solid(values, box, size=(100, 60), **options):
    """The overlay on black at full opacity, as an array."""
    options = {"opacity": 1.0, "fade": False, "upsampling": "nearest"} | options
    return np.asarray(overlay(Image.new("RGB", size), np.asarray(values, dtype=np.float32), box, **options))


COLORS = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]], dtype=np.uint8)
GROUND, EDGE, RING = (90, 120, 150), (20, 19, 18), (255, 255, 255)


def candidate(block, y, x, refined=None):
    return Candidate(block, y, x, 1.0, 0, 0, refined)


def discs(candidates, grid, box, size=(200, 100), opacity=1.0):
    """Candidates on a plain ground, as an array."""
    picture = Image.new("RGB", size, GROUND)
    return np.asarray(mark_candidates(picture, candidates, grid, box, colors=COLORS, opacity=opacity))


def luminance(rgb):
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_colours_grow_lighter(colormap):
    table = color_table(colormap)
    assert table.shape == (256, 3)
    assert (np.diff(luminance(table.astype(float))) > -1e-3).all()
    assert luminance(table[-1].astype(float)) - luminance(table[0].astype(float)) > 0.7


def test_outside_of_the_box_nothing_changes(picture):
    before = np.asarray(picture).copy()
    after = np.asarray(overlay(picture, np.ones((3, 4), np.float32), (20, 10, 80, 50), fade=False))
    inside = np.zeros((60, 100), bool)
    inside[10:50, 20:80] = True
    np.testing.assert_array_equal(after[~inside], before[~inside])
    assert (after[inside] != before[inside]).any(axis=-1).all()
    np.testing.assert_array_equal(np.asarray(picture), before)


def test_each_cell_covers_its_share_of_the_box():
    table = color_table("magma")
    drawn = solid([[0, 1], [2, 4]], (20, 10, 80, 50))
    np.testing.assert_array_equal(drawn[10:30, 20:50], np.broadcast_to(table[0], (20, 30, 3)))
    np.testing.assert_array_equal(drawn[10:30, 50:80], np.broadcast_to(table[64], (20, 30, 3)))
    np.testing.assert_array_equal(drawn[30:50, 20:50], np.broadcast_to(table[128], (20, 30, 3)))
    np.testing.assert_array_equal(drawn[30:50, 50:80], np.broadcast_to(table[255], (20, 30, 3)))


def test_only_pixels_with_their_centre_in_the_box():
    drawn = solid([[1.0]], (20.4, 9.6, 79.4, 50.6), size=(100, 60)).any(axis=-1)
    rows, columns = np.where(drawn.any(1))[0], np.where(drawn.any(0))[0]
    assert (columns[0], columns[-1], rows[0], rows[-1]) == (20, 78, 10, 50)


def test_a_box_beyond_the_picture_shows_the_part_inside():
    table = color_table("magma")
    drawn = solid([[1, 2, 3, 4]], (-100, -10, 100, 70), vmin=0, vmax=4)
    np.testing.assert_array_equal(drawn[0, 0], table[191])
    np.testing.assert_array_equal(drawn[59, 99], table[255])
    unchanged = solid([[1.0]], (200, 0, 300, 60))
    assert not unchanged.any()


def test_bilinear_passes_through_cell_centres_and_is_linear_between():
    drawn = solid([[0, 1]], (0, 0, 100, 60), upsampling="bilinear", colormap="viridis")
    table = color_table("viridis").astype(int)
    level = [np.abs(table - drawn[5, x]).sum(1).argmin() / 255 for x in range(100)]
    expected = np.clip((np.arange(100) + 0.5 - 25) / 50, 0, 1)
    np.testing.assert_allclose(level, expected, atol=2 / 255)


def test_colour_scale_is_shared():
    low, high = (solid([[v]], (0, 0, 10, 10), size=(10, 10), vmin=0, vmax=10)[5, 5] for v in (2, 10))
    table = color_table("magma")
    np.testing.assert_array_equal(low, table[51])
    np.testing.assert_array_equal(high, table[255])
    clipped = solid([[99]], (0, 0, 10, 10), size=(10, 10), vmin=0, vmax=10)[5, 5]
    np.testing.assert_array_equal(clipped, table[255])


def test_opacity_and_fade(picture):
    before = np.asarray(picture).astype(float)
    values = np.array([[0.0, 1.0]], np.float32)
    box = (0, 0, 100, 60)
    colour = color_table("magma")[255].astype(float)
    faded = np.asarray(overlay(picture, values, box, opacity=0.6, upsampling="nearest")).astype(float)
    np.testing.assert_array_equal(faded[:, :50], before[:, :50])
    np.testing.assert_allclose(faded[:, 50:], 0.4 * before[:, 50:] + 0.6 * colour, atol=1.01)
    invisible = np.asarray(overlay(picture, values, box, opacity=0, fade=False))
    np.testing.assert_array_equal(invisible, before)


def test_a_constant_zero_map_leaves_the_picture(picture):
    drawn = overlay(picture, np.zeros((4, 4), np.float32), (0, 0, 100, 60))
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(picture))


def test_large_pictures_shrink_with_their_box():
    drawn = solid([[1.0]], (400, 0, 800, 600), size=(800, 600), max_side=80)
    assert drawn.shape == (60, 80, 3)
    assert not drawn[:, :40].any()
    assert drawn[:, 40:].any(axis=-1).all()
    assert solid([[1.0]], (0, 0, 10, 10), size=(30, 20), max_side=80).shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"opacity": 1.5}, "0 to 1"), ({"colormap": "jet"}, "magma"), ({"upsampling": "cubic"}, "bilinear")],
)
def test_bad_options(picture, options, message):
    with pytest.raises(UserError, match=message):
        overlay(picture, np.ones((2, 2), np.float32), (0, 0, 10, 10), **options)


def test_colour_bar_runs_through_the_table():
    bar = np.asarray(color_bar(0, 12, size=(256, 10), label="votes"))
    np.testing.assert_array_equal(bar[5], color_table("magma"))
    assert (bar[10:] < 128).any(), "figures are written below"


def test_a_disc_has_the_colour_of_its_block():
    """The cell is 100 px wide: the disc reaches to 35 from its centre, its edge to 39."""
    drawn = discs([candidate(2, 0, 1)], (1, 2), (0, 0, 200, 100))
    for at in ((50, 150), (50, 150 - 33), (50 + 33, 150), (50 - 23, 150 - 23)):
        assert tuple(drawn[at]) == (0, 0, 200)
    for at in ((50, 150 + 37), (50 - 37, 150)):
        assert tuple(drawn[at]) == EDGE
    for at in ((50, 150 + 42), (50 - 48, 150), (2, 102)):
        assert tuple(drawn[at]) == GROUND
    np.testing.assert_array_equal(drawn[:, :100], np.broadcast_to(GROUND, (100, 100, 3)))


def test_refined_ones_are_ringed():
    """The ring reaches from 39 to 46, its own edge to 50."""
    drawn = discs([candidate(0, 0, 0, refined=3)], (1, 2), (0, 0, 200, 100))
    assert tuple(drawn[50, 50]) == (200, 0, 0)
    for x in (50 + 42, 50 - 42):
        assert tuple(drawn[50, x]) == RING
        assert tuple(drawn[x, 50]) == RING
    assert tuple(drawn[50, 50 + 47]) == EDGE
    assert tuple(drawn[2, 2]) == GROUND


def test_a_patch_of_several_blocks_is_divided_clockwise_from_the_top():
    drawn = discs([candidate(2, 0, 0, refined=0), candidate(1, 0, 0)], (1, 2), (0, 0, 200, 100))
    assert (tuple(drawn[50, 70]), tuple(drawn[50, 30])) == ((0, 0, 200), (0, 200, 0))
    assert (tuple(drawn[50, 92]), tuple(drawn[50, 8])) == (RING, GROUND)
    thirds = discs([candidate(0, 0, 0), candidate(1, 0, 0), candidate(2, 0, 0)], (1, 2), (0, 0, 200, 100))
    assert [tuple(thirds[at]) for at in ((40, 65), (75, 50), (40, 35))] == [(200, 0, 0), (0, 200, 0), (0, 0, 200)]


def test_discs_lie_in_the_cells_of_a_box_that_is_not_square():
    """Cells of 20 x 40 px in a box that starts at (30, 10)."""
    drawn = discs([candidate(1, 1, 2)], (2, 3), (30, 10, 90, 90))
    rows, columns = np.where((drawn != GROUND).any(axis=-1))
    assert tuple(drawn[70, 80]) == (0, 200, 0)
    assert (rows.min(), rows.max()) == pytest.approx((70 - 0.39 * 40, 70 + 0.39 * 40), abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((80 - 0.39 * 20, 80 + 0.39 * 20), abs=1)


def test_discs_of_a_box_beyond_the_picture():
    box = (-150, -50, 250, 150)
    drawn = discs([candidate(0, 0, 1), candidate(1, 1, 3), candidate(2, 0, 0)], (2, 4), box)
    assert tuple(drawn[2, 2]) == (200, 0, 0)
    assert tuple(drawn[98, 198]) == (0, 200, 0)
    assert not (drawn == COLORS[2]).all(axis=-1).any(), "this cell lies outside"
    shifted = discs([candidate(0, 0, 0)], (1, 1), (0.5, 0, 100.5, 100))
    assert (shifted[:, 1:101] != GROUND).any()
    np.testing.assert_array_equal(discs([candidate(0, 0, 0)], (1, 1), (500, 0, 600, 100)), discs([], (1, 1), box))


def test_opacity_of_discs():
    drawn = discs([candidate(0, 0, 0)], (1, 2), (0, 0, 200, 100), opacity=0.5)
    np.testing.assert_allclose(drawn[50, 50], (np.array(GROUND) + COLORS[0]) / 2, atol=1)
    assert (discs([candidate(0, 0, 0)], (1, 2), (0, 0, 200, 100), opacity=0) == GROUND).all()
    with pytest.raises(UserError, match="0 to 1"):
        discs([], (1, 1), (0, 0, 1, 1), opacity=1.5)


def test_merged_tokens_are_not_drawn(picture):
    merged = Candidate(0, None, None, None, None, 3, 0)
    drawn = mark_candidates(picture, [merged], (2, 2), (0, 0, 100, 60), colors=COLORS)
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(picture))


@pytest.mark.parametrize("count", [1, 3, 11, 23])
def test_blocks_grow_lighter(count):
    colors = block_colors(count)
    assert (colors.shape, colors.dtype) == ((count, 3), np.uint8)
    assert (np.diff(luminance(colors.astype(float))) > 0).all()
