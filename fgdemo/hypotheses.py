"""What a class would be divided into under each K that was tried for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fgdemo.errors import UserError
from fgdemo.gallery import Gallery


class Cluster(NamedTuple):
    """A cluster of a class under some K.

    `number` counts from 0 as in `Gallery.hypotheses`; `prototypes` are gallery rows, most central first; `spread` is
    the mean squared distance of the training pictures to their mean.
    """

    number: int
    size: int
    spread: float
    prototypes: np.ndarray


def alternatives(gallery: Gallery, class_id: int) -> list[int]:
    """The K, ascending, under which the training pictures of a class lie otherwise than in its current subclasses."""
    rows = _rows(gallery, class_id)
    if gallery.hypotheses is None or not len(rows):
        return []
    current = gallery.subclass_id[rows]
    found = []
    for k, clusters in zip(gallery.subclasses["ks"], gallery.hypotheses[rows].T, strict=True):
        pairs = len(np.unique(np.stack([current, clusters]), axis=1).T)
        same = pairs == len(np.unique(current)) == len(np.unique(clusters))
        if clusters.min() >= 0 and not same:
            found.append(k)
    return found


def clusters_under(gallery: Gallery, class_id: int, k: int, n: int) -> list[Cluster]:
    """The clusters of a class under one K, largest first, with at most `n` prototypes each.

    Raises:
        UserError: the class has no clusters under this K.
    """
    rows = _rows(gallery, class_id)
    ks = gallery.subclasses.get("ks", [])
    numbers = gallery.hypotheses[rows, ks.index(k)] if k in ks else np.full(len(rows), -1)
    if not len(rows) or numbers.min() < 0:
        raise UserError(f"This class has no hypothesis K = {k} in this checkpoint; choose another.")
    found = []
    for number in np.unique(numbers).tolist():
        mine = rows[numbers == number]
        x = np.asarray(gallery.embeddings[mine], dtype=np.float32)
        mean = x.mean(0)
        lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(mean)
        distances = 1 - x @ mean / np.maximum(lengths, np.finfo(np.float32).tiny)
        spread = float(np.square(x - mean).sum(1).mean())
        found.append(Cluster(number, len(mine), spread, mine[np.argsort(distances, kind="stable")[:n]]))
    return sorted(found, key=lambda cluster: (-cluster.size, cluster.number))


def _rows(gallery: Gallery, class_id: int) -> np.ndarray:
    return gallery.train_rows[gallery.class_id[gallery.train_rows] == class_id]
