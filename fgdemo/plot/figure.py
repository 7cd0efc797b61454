"""What a figure shows: some pictures of a gallery, where each lies in the plane, and what its colour means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fgdemo.checkpoint import Checkpoint, title
from fgdemo.clustering import Projection, project2d
from fgdemo.clustering.checks import as_choice, as_count, as_seed
from fgdemo.clustering.neighbours import sample_rows
from fgdemo.clustering.reduce import FEWEST_ROWS, PLACED_BY
from fgdemo.data import keyed_permutation
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery
from fgdemo.palette import STYLES
from fgdemo.plot.colouring import Group, colour_by

COLOURS = ("class", "subclass", "fine", "split")
MAX_POINTS = 50_000
PROJECTION_NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}


@dataclass(frozen=True)
class Figure:
    """One picture of a gallery, however it is written.

    Attributes:
        name: of the checkpoint, as a person calls it: its folder's name or its Hub id.
        title: of the checkpoint.
        class_names: of the whole checkpoint.
        colour: what the colours stand for, one of COLOURS.
        seed: of the sample and of the projection.
        rows: (n,) gallery rows in the order in which they are drawn, later ones on top, which is random by `seed`: no
            group hides another one as a whole. A point's number is its position here.
        projection: points (n, 2) of these rows.
        codes: (n,) int64 position in `groups` of every point.
        groups: the legend.
        notes: sentences on what a reader must know.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    gallery: Gallery
    colour: str
    seed: int
    rows: np.ndarray
    projection: Projection
    codes: np.ndarray
    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    @property
    def facts(self) -> list[str]:
        """What is shown: the checkpoint's name, number of pictures, projection, colouring, seed."""
        n = len(self.rows)
        return [
            self.name,
            f"{n:,} picture{'s' if n > 1 else ''}",
            PROJECTION_NAMES[self.projection.method],
            f"coloured by {self.colour}",
            f"seed {self.seed}",
        ]


def make_figure(
    checkpoint: Checkpoint,
    *,
    name: str | None = None,
    colour: str = "subclass",
    projection: str = "pca",
    class_ids: Sequence[int] | None = None,
    seed: int = 0,
    max_points: int = MAX_POINTS,
    data_root: str | Path | None = None,
) -> Figure:
    """Lay out the gallery of a checkpoint, all its splits.

    Args:
        name: what the checkpoint is called; its folder's name when None.
        class_ids: classes to draw; all when None.
        max_points: a seeded sample of so many pictures is drawn where there are more.
        data_root: folder of the data set, which fine labels are read from.

    Raises:
        UserError: an unknown choice, classes without a picture, fine labels that cannot be had, umap-learn missing.
    """
    as_choice(colour, "colour", COLOURS)
    seed, max_points = as_seed(seed), as_count(max_points, "--max-points", 1)
    gallery = Gallery.from_checkpoint(checkpoint)
    class_names = tuple(checkpoint.config["label_names"])
    rows = _rows_of(gallery, class_ids, class_names)
    total = len(rows)
    sample = sample_rows(total, max_points, seed)
    rows = rows if sample is None else rows[sample]
    codes, groups = colour_by(checkpoint, gallery, rows, colour, data_root)
    placed = project2d(np.asarray(gallery.embeddings[rows], dtype=np.float32), projection, seed)
    order = keyed_permutation(len(rows), "drawing order", seed)
    return Figure(
        name=name or checkpoint.directory.name,
        title=title(checkpoint.config),
        class_names=class_names,
        gallery=gallery,
        colour=colour,
        seed=seed,
        rows=rows[order],
        projection=replace(placed, points=placed.points[order]),
        codes=codes[order],
        groups=tuple(groups),
        notes=tuple(_notes(placed, projection, total, len(groups), seed)),
    )


def _rows_of(gallery: Gallery, class_ids: Sequence[int] | None, class_names: Sequence[str]) -> np.ndarray:
    if not len(gallery):
        raise UserError("The gallery of this checkpoint is empty, so there is nothing to draw.")
    if class_ids is None:
        return np.arange(len(gallery))
    for class_id in class_ids:
        if not (gallery.class_id == class_id).any():
            raise UserError(f"Class {class_names[class_id]!r} has no picture in the gallery: choose another.")
    return np.flatnonzero(np.isin(gallery.class_id, class_ids))


def _notes(projection: Projection, asked: str, total: int, groups: int, seed: int) -> list[str]:
    notes, n = [], len(projection.points)
    if n < total:
        notes.append(f"A sample of {n:,} of {total:,} pictures, drawn with seed {seed}.")
    if projection.method != asked:
        notes.append(f"Fewer than {FEWEST_ROWS} pictures: PCA in place of {PROJECTION_NAMES[asked]}.")
    if projection.sampled is not None:
        notes.append(
            f"{PROJECTION_NAMES[asked]} ran on a sample of {projection.sampled:,} pictures; each of the others lies "
            f"at the weighted mean of its {PLACED_BY} nearest among them."
        )
    if groups > STYLES:
        notes.append(f"{groups:,} groups share {STYLES} colours and shapes.")
    return notes
