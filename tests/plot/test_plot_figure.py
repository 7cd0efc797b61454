"""What is drawn of a gallery in the plane, and in which groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.plots import figure_of, names_of
from tiny_checkpoint import CLASSES

from fgdemo.clustering import project2d, reduce
from fgdemo.data import load_catalogue
from fgdemo.gallery import SPLITS
from fgdemo.palette import colour, symbol
from fgdemo.plot.figure import COLOURS


def test_class_colours_are_the_classes_under_their_superclasses(digits: Path) -> None:
    figure = figure_of(digits, colour="class")
    assert names_of(figure) == [figure.class_names[i] for i in figure.gallery.class_id[figure.rows]]
    assert [(group.name, group.parent) for group in figure.groups] == [
        *(("0", "even"), ("1", "odd"), ("2", "even"), ("3", "odd"))
    ]
    assert [group.size for group in figure.groups] == [50, 50, 50, 50]


def test_superclasses_that_are_the_classes_are_no_parents(parity: Path) -> None:
    figure = figure_of(parity, colour="class")
    assert [(group.name, group.parent, group.size) for group in figure.groups] == [("even", "", 100), ("odd", "", 100)]


def test_subclass_colours_are_the_subclasses_and_what_has_none(tiny: Path) -> None:
    figure = figure_of(tiny, colour="subclass")
    shown = [(figure.groups[code].parent, figure.groups[code].name) for code in figure.codes]
    class_ids, ids = figure.gallery.class_id[figure.rows], figure.gallery.subclass_id[figure.rows]
    expected = [(CLASSES[c], f"kind {i}" if i >= 0 else "none") for c, i in zip(class_ids, ids, strict=True)]
    assert shown == expected
    assert [group.parent for group in figure.groups] == ["apple", "apple", "apple", "moss", "moss", "sky"]


def test_split_colours_are_the_splits(digits: Path) -> None:
    figure = figure_of(digits, colour="split")
    assert names_of(figure) == [SPLITS[i] for i in figure.gallery.split[figure.rows]]
    assert {group.name for group in figure.groups} == set(SPLITS)


def test_fine_colours_come_from_the_data_set_by_key(parity: Path) -> None:
    figure = figure_of(parity, colour="fine", max_points=77)
    catalogue = load_catalogue("digits")
    truth = dict(zip(catalogue.keys.tolist(), catalogue.fine.tolist(), strict=True))
    assert names_of(figure) == [str(truth[figure.gallery.keys[row]]) for row in figure.rows]
    assert [(group.name, group.parent) for group in figure.groups] == [
        *(("0", "even"), ("2", "even"), ("1", "odd"), ("3", "odd"))
    ]


def test_groups_look_different_and_count_their_points(digits: Path) -> None:
    for kind in COLOURS:
        figure = figure_of(digits, colour=kind, max_points=150)
        assert len({(colour(group.style), symbol(group.style)) for group in figure.groups}) == len(figure.groups)
        assert [group.size for group in figure.groups] == np.bincount(figure.codes).tolist()


@pytest.mark.parametrize("projection", ["pca", "tsne"])
def test_points_are_those_of_the_projection(digits: Path, projection: str) -> None:
    figure = figure_of(digits, projection=projection, seed=3, class_ids=[1, 3])
    rows = np.flatnonzero(np.isin(figure.gallery.class_id, [1, 3]))
    expected = project2d(figure.gallery.embeddings[rows].astype(np.float32), projection, 3)
    order = np.argsort(figure.rows)
    np.testing.assert_array_equal(figure.rows[order], rows)
    np.testing.assert_array_equal(figure.projection.points[order], expected.points)
    assert {"pca": "PCA", "tsne": "t-SNE"}[projection] in figure.facts


def test_points_are_drawn_in_an_order_that_favours_no_group_and_follows_the_seed(digits: Path) -> None:
    figure, same, other = (figure_of(digits, colour="class", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(figure.rows, same.rows)
    assert (figure.rows != other.rows).any()
    # the mean place of a group's points in the order, of 0 to 199: within 3 standard errors, 25, of the middle
    places = [np.flatnonzero(figure.codes == code).mean() for code in range(4)]
    assert np.abs(np.array(places) - 99.5).max() < 25


def test_too_many_points_are_sampled_by_seed_and_the_figure_says_so(digits: Path) -> None:
    figure, same, other = (figure_of(digits, max_points=60, seed=seed) for seed in (0, 0, 1))
    assert len(np.unique(figure.rows)) == 60
    np.testing.assert_array_equal(figure.rows, same.rows)
    assert set(figure.rows) != set(other.rows)
    assert figure.notes == ("A sample of 60 of 200 pictures, drawn with seed 0.",)
    assert figure.facts == ["digits", "60 pictures", "PCA", "coloured by subclass", "seed 0"]
    assert figure_of(digits, max_points=200).notes == ()


def test_a_projection_on_a_sample_says_so(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "PROJECTED_ROWS", 40)
    (note,) = figure_of(digits, projection="tsne", class_ids=[0]).notes
    assert note.startswith("t-SNE ran on a sample of 40 pictures; each of the others lies at the weighted mean")


def test_a_handful_of_points_is_drawn_by_pca(tiny: Path) -> None:
    figure = figure_of(tiny, projection="tsne", class_ids=[0])
    assert figure.notes == ("Fewer than 10 pictures: PCA in place of t-SNE.",)
    assert figure.facts[1:3] == ["4 pictures", "PCA"]


def test_more_groups_than_looks_are_admitted(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgdemo.plot.figure.STYLES", 5)
    assert figure_of(tiny).notes == ("6 groups share 5 colours and shapes.",)
