"""Divide the classes of a gallery into subclasses, again and again, without losing who is who."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgdemo.clustering import METHODS, ClasswiseClustering, classwise_kmeans, cluster, pca
from fgdemo.clustering.checks import as_count
from fgdemo.clustering.quality import ami, ari, inertia_ratio, silhouette
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery
from fgdemo.subdivision import Partition, renew

KMEANS_METHODS = ("kmeans", "spherical")


@dataclass(frozen=True)
class ClassQuality:
    """How well one partition of a class fits its pictures, in the gallery's own embedding space.

    Attributes:
        k: number of subclasses.
        inertia_ratio: J_K / J_1, the share of the class's variance that is left inside its subclasses.
        silhouette: mean silhouette; None where there are fewer than two subclasses.
    """

    k: int
    inertia_ratio: float
    silhouette: float | None


@dataclass(frozen=True)
class Reclustering:
    """A new division of some classes.

    Attributes:
        gallery: the gallery with the new subclasses; the other classes keep theirs.
        before, after: class id -> quality.
        agreement: class id -> {"ari", "ami"} between the old and the new division, over the rows that had one.
        sampled: rows of the seeded sample that a method quadratic in N ran on, by class id, where it did.
        noise: pictures that HDBSCAN called noise before each went to its nearest subclass.
    """

    gallery: Gallery
    before: dict[int, ClassQuality]
    after: dict[int, ClassQuality]
    agreement: dict[int, dict[str, float]]
    sampled: dict[int, int]
    noise: int


def divide(
    gallery: Gallery,
    found: ClasswiseClustering,
    *,
    chosen_by: str,
    columns: bool,
    engine: str | None = None,
    seed: int | None = None,
) -> Gallery:
    """Give a gallery the subclasses that a clustering chose, and keep what it found under every other K.

    A subclass that holds most of an old one's pictures keeps its id and name, as in `recluster`. Rows of other splits
    go to the nearest centroid of their class, by cosine among the gallery's embeddings: of the new subclasses, and of
    the clusters under each K. A class for which nothing was chosen among `found.ks` is one subclass; a class without
    pictures has none.

    Args:
        found: of the gallery's training rows in their order, with the gallery's class ids.
        chosen_by: the criterion that chose; its scores are kept where `found` has them.
        columns: whether the columns of the network's head are those of `found`: each subclass then says which column
            of its class is its own. The one subclass of a class that has no K among `found.ks` has column 0, the first
            of the smallest K.
        engine: recorded as what computed the clusters; k-means and the engine of `found` when None.
        seed: recorded; that of `found` when None.

    Raises:
        ValueError: `found` is of other rows.
    """
    rows = gallery.train_rows
    labels = gallery.class_id[rows].astype(np.int64)
    if not np.array_equal(found.class_ids, labels):
        raise ValueError("the clustering is not one of the gallery's training rows")
    clusters = found.subclass_labels()
    chosen = found.chosen[labels]
    starts = {k: found.block(k).start for k in found.ks}
    partition = Partition(
        clusters,
        _scores(found, chosen_by, range(len(found.chosen))),
        chosen_by,
        engine if engine is not None else f"kmeans/{found.engine}",
        {},
        0,
        _by_k(found),
        np.array([starts.get(k, 0) for k in chosen.tolist()], np.int64) + clusters if columns else None,
    )
    return renew(gallery, rows, labels, partition, found.seed if seed is None else seed, found.ks)


def recluster(
    gallery: Gallery,
    class_ids: Sequence[int] | None = None,
    *,
    method: str = "kmeans",
    k: int | None = None,
    criterion: str = "silhouette",
    max_k: int = 12,
    pca_dim: int | None = None,
    seed: int = 0,
    engine: str = "auto",
    at_least: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Reclustering:
    """Divide the training pictures of some classes anew.

    A new subclass that holds most of an old one's pictures keeps its id and name (Hungarian matching on shared
    pictures); others get ids never used before. Rows of other splits go to the nearest new centroid of their class.

    A gallery with hypotheses keeps them for the same K, the classes divided here with new ones: what k-means found
    under each of these K on the way to choosing k, none (-1) where k is given, another method runs, or a K was not
    tried. The head's columns are no longer told of these classes, since it was not trained to tell the new subclasses.

    Args:
        class_ids: classes to divide; all that have pictures when None.
        method: kmeans, spherical, gmm, agglomerative or hdbscan.
        k: subclasses of each class; chosen from the data when None.
        criterion: what chooses k for the two k-means methods: a name of `fgdemo.clustering.criteria.CRITERIA`.
        max_k: the most subclasses that are considered when k is chosen.
        pca_dim: cluster in the space of this many principal components of the chosen pictures.
        at_least: training pictures that every subclass gets, for the two k-means methods.
        progress: called with (classes done, classes) on the way; whatever it raises ends the work.

    Raises:
        UserError: an unknown class or method, or a k or least size that one of the classes cannot have.
    """
    if method not in METHODS:
        raise UserError(f"Unknown method '{method}'; choose one of {', '.join(METHODS)}.")
    present = np.unique(gallery.class_id[gallery.train_rows])
    chosen = present if class_ids is None else np.unique(np.asarray(class_ids, dtype=np.int64))
    unknown = np.setdiff1d(chosen, present)
    if len(unknown) or not len(chosen):
        raise UserError(
            f"Class {unknown[0] if len(unknown) else '(none)'} has no picture in the gallery: choose another."
        )
    rows = gallery.train_rows[np.isin(gallery.class_id[gallery.train_rows], chosen)]
    labels = gallery.class_id[rows].astype(np.int64)
    at_least = as_count(at_least, "The least number of pictures of a subclass", 1)
    if at_least > 1 and method not in KMEANS_METHODS:
        raise UserError(f"A least size goes with the methods {' and '.join(KMEANS_METHODS)}, not with {method}.")
    if k is not None:
        _check_k(k, labels, at_least)
    x = np.asarray(gallery.embeddings[rows], dtype=np.float32)
    space = x if pca_dim is None else pca(x, pca_dim, seed)
    if method in KMEANS_METHODS:
        partition = _by_kmeans(
            space, labels, method, k, criterion, max_k, seed=seed, engine=engine, at_least=at_least, progress=progress
        )
    else:
        partition = _one_by_one(space, labels, method, k, max_k, seed, progress)
    new_gallery = renew(gallery, rows, labels, partition, seed, gallery.subclasses.get("ks"))
    old, new = gallery.subclass_id[rows], new_gallery.subclass_id[rows]
    before, after, agreement = {}, {}, {}
    for class_id in chosen.tolist():
        mine = labels == class_id
        had = mine & (old != -1)
        after[class_id] = _quality(x[mine], new[mine])
        if had.any():
            before[class_id] = _quality(x[had], old[had])
            agreement[class_id] = {"ari": ari(old[had], new[had]), "ami": ami(old[had], new[had])}
    return Reclustering(new_gallery, before, after, agreement, partition.sampled, partition.noise)


def _check_k(k: int, labels: np.ndarray, at_least: int) -> None:
    ids, sizes = np.unique(labels, return_counts=True)
    smallest = int(sizes.min())
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= smallest:
        raise UserError(
            f"K is {k}, but it is a whole number from 1 to {smallest}, the pictures of class {ids[sizes.argmin()]}."
        )
    if k > 1 and k * at_least > smallest:
        raise UserError(
            f"{k} subclasses of at least {at_least} pictures need {k * at_least}, but class {ids[sizes.argmin()]} has "
            f"{smallest}: choose a smaller number of either."
        )


def _by_kmeans(
    x: np.ndarray, labels: np.ndarray, method: str, k: int | None, criterion: str, max_k: int, **common: Any
) -> Partition:
    """All classes in one call; ids inside it are compacted, since it counts classes from 0."""
    ids, compact = np.unique(labels, return_inverse=True)
    common["spherical"] = method == "spherical"
    if k is None:
        found = classwise_kmeans(x, compact, select=criterion, max_k=max_k, **common)
    else:
        # A person may ask for as many subclasses as there are pictures; the automatic choice keeps its own minimum.
        found = classwise_kmeans(x, compact, [k], select=k, min_size=1, **common)
        if (found.chosen < k).any():
            # Equal pictures: a class has fewer distinct ones than k, and gets as many subclasses as it can.
            found = classwise_kmeans(x, compact, range(1, k + 1), select=k, min_size=1, **common)
    engine = f"{method}/{found.engine}"
    if k is not None:
        return Partition(found.subclass_labels(), {}, "given", engine, {}, 0, {})
    scores = _scores(found, criterion, ids.tolist())
    return Partition(found.subclass_labels(), scores, criterion, engine, {}, 0, _by_k(found))


def _scores(found: ClasswiseClustering, criterion: str, class_ids: Iterable[int]) -> dict[int, dict[str, float]]:
    """Scores of each K by class, where they are defined; `class_ids` in the order of the clustering's classes."""
    if criterion not in found.scores:
        return {}
    return {
        class_id: {str(k): score for k, score in zip(found.ks, line, strict=True) if np.isfinite(score)}
        for class_id, line in zip(class_ids, found.scores[criterion].tolist(), strict=True)
    }


def _by_k(found: ClasswiseClustering) -> dict[int, np.ndarray]:
    return dict(zip(found.ks, found.labels.T, strict=True))


def _one_by_one(
    x: np.ndarray,
    labels: np.ndarray,
    method: str,
    k: int | None,
    max_k: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> Partition:
    result = np.zeros(len(labels), np.int64)
    sampled: dict[int, int] = {}
    noise, engine = 0, ""
    ids = np.unique(labels).tolist()
    for done, class_id in enumerate(ids, 1):
        mine = np.flatnonzero(labels == class_id)
        found = cluster(x[mine], method, k=k, max_k=max_k, seed=seed)
        result[mine] = found.labels
        noise += found.noise
        engine = found.engine
        if found.sampled is not None:
            sampled[class_id] = found.sampled
        if progress is not None:
            progress(done, len(ids))
    return Partition(result, {}, "given" if k is not None else method, f"{method}/{engine}", sampled, noise, {})


def _quality(x: np.ndarray, ids: np.ndarray) -> ClassQuality:
    k = len(np.unique(ids))
    return ClassQuality(k, inertia_ratio(x, ids), silhouette(x, ids) if k > 1 else None)
