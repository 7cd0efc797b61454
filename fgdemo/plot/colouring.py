"""What the colours of a figure stand for: classes, subclasses, fine labels or splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fgdemo.checkpoint import Checkpoint
from fgdemo.data import load_training_catalogue
from fgdemo.errors import UserError
from fgdemo.gallery import SPLITS, Gallery
from fgdemo.palette import assign_styles


class Group(NamedTuple):
    """Points of one colour and symbol: an entry of the legend, under its parent's name where it has one."""

    name: str
    parent: str
    size: int
    style: int


class Labels(NamedTuple):
    """(n,) int64 id of every point, and the name and the parent's name that an id stands for."""

    ids: np.ndarray
    name: Callable[[int], str]
    parent: Callable[[int], str]


def colour_by(
    checkpoint: Checkpoint, gallery: Gallery, rows: np.ndarray, colour: str, data_root: str | Path | None
) -> tuple[np.ndarray, list[Group]]:
    """(n,) position in the groups of every row, and the groups by class, then by id.

    Raises:
        UserError: fine labels that the data set does not have, or a data set that is not there.
    """
    names, ours = checkpoint.config["label_names"], checkpoint.config["fgdemo"]
    if colour == "class":
        labels = _classes(gallery, rows, names, ours["superclass_names"])
    elif colour == "subclass":
        labels = _subclasses(gallery, rows, names)
    elif colour == "fine":
        labels = _fine(gallery, rows, ours["training"], data_root)
    else:
        labels = Labels(gallery.split[rows].astype(np.int64), lambda i: SPLITS[i], lambda i: "")
    ids, first, sizes = np.unique(labels.ids, return_index=True, return_counts=True)
    order = np.arange(len(ids))
    if colour in ("subclass", "fine"):
        order = np.lexsort((ids, gallery.class_id[rows[first]]))
    styles = assign_styles(ids.tolist())
    groups = [
        Group(labels.name(i), labels.parent(i), size, styles[i])
        for i, size in zip(ids[order].tolist(), sizes[order].tolist(), strict=True)
    ]
    return np.argsort(order)[np.searchsorted(ids, labels.ids)], groups


def _classes(gallery: Gallery, rows: np.ndarray, names: list[str], superclasses: list[str]) -> Labels:
    parents = superclasses if superclasses != names else [""] * len(names)
    return Labels(gallery.class_id[rows].astype(np.int64), lambda i: names[i], lambda i: parents[i])


def _subclasses(gallery: Gallery, rows: np.ndarray, names: list[str]) -> Labels:
    """A class without subclasses is a group of its own, under an id below 0."""
    ids, class_ids = gallery.subclass_id[rows].astype(np.int64), gallery.class_id[rows].astype(np.int64)
    owners = dict(zip(gallery.centroid_ids.tolist(), gallery.centroid_class.tolist(), strict=True))
    return Labels(
        np.where(ids >= 0, ids, -1 - class_ids),
        lambda i: subclass_name(gallery, i),
        lambda i: names[owners[i] if i >= 0 else -1 - i],
    )


def subclass_name(gallery: Gallery, subclass_id: int) -> str:
    return gallery.members[subclass_id]["name"] if subclass_id >= 0 else "none"


def _fine(gallery: Gallery, rows: np.ndarray, training: dict[str, Any], data_root: str | Path | None) -> Labels:
    catalogue = load_training_catalogue(training, data_root)
    if catalogue.hierarchy.is_flat:
        raise UserError(
            f"Data set {catalogue.name} has one level of labels, so none are finer than the classes: use --color class."
        )
    keys = np.array([gallery.keys[row] for row in rows])
    order = np.argsort(catalogue.keys)
    place = np.searchsorted(catalogue.keys, keys, sorter=order)
    found = order[np.minimum(place, len(order) - 1)]
    missing = np.flatnonzero(catalogue.keys[found] != keys)
    if len(missing):
        raise UserError(
            f"Data set {catalogue.name} lacks {len(missing):,} of the {len(keys):,} pictures of the gallery, such as "
            f"{str(keys[missing[0]])!r}: give the --data-root that the checkpoint was trained on."
        )
    names, parents = catalogue.class_names("fine"), catalogue.superclass_names("fine")

    def inner(i: int) -> str:
        # some sets name a fine class by its coarse one too, which the legend says already
        return names[i].removeprefix(f"{parents[i]} / ").removeprefix(f"{parents[i]}/")

    return Labels(catalogue.fine[found], inner, lambda i: parents[i])
