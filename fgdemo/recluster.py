"""Divide the classes of a gallery into subclasses, again and again, without losing who is who."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgdemo.checkpoint import SCHEMA_VERSION
from fgdemo.clustering import METHODS, classwise_kmeans, cluster, match_ids, pca
from fgdemo.clustering.checks import as_count
from fgdemo.clustering.quality import SILHOUETTE_ROWS, ami, ari, inertia_ratio, silhouette
from fgdemo.errors import UserError
from fgdemo.gallery import TRAIN, Gallery

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


@dataclass(frozen=True)
class _Partition:
    """Clusters 0..k-1 of all rows, each inside its class, with what chose k."""

    labels: np.ndarray
    scores: dict[int, dict[str, float]]
    chosen_by: str
    engine: str
    sampled: dict[int, int]
    noise: int


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
    new_gallery = _renew(gallery, rows, labels, partition, seed)
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
) -> _Partition:
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
    table = found.scores.get(criterion) if k is None else None
    scores: dict[int, dict[str, float]] = {}
    if table is not None:
        for position, class_id in enumerate(ids.tolist()):
            pairs = zip(found.ks, table[position].tolist(), strict=True)
            scores[class_id] = {str(candidate): score for candidate, score in pairs if np.isfinite(score)}
    chosen_by = "given" if k is not None else criterion
    return _Partition(found.subclass_labels(), scores, chosen_by, f"{method}/{found.engine}", {}, 0)


def _one_by_one(
    x: np.ndarray,
    labels: np.ndarray,
    method: str,
    k: int | None,
    max_k: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> _Partition:
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
    return _Partition(result, {}, "given" if k is not None else method, f"{method}/{engine}", sampled, noise)


def _renew(gallery: Gallery, rows: np.ndarray, labels: np.ndarray, partition: _Partition, seed: int) -> Gallery:
    """The gallery under the new partition of `rows`, whose ids follow the old ones where they can."""
    pairs = np.stack([labels, partition.labels], axis=1)
    clusters = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    old = gallery.subclass_id[rows].astype(np.int64)
    old_ids = np.unique(old[old != -1])
    positions = np.where(old == -1, -1, np.searchsorted(old_ids, old))
    ids, next_id = match_ids(positions, clusters, old_ids, int(gallery.subclasses.get("next_id", 0)))
    subclass_id = np.array(gallery.subclass_id, dtype=np.int32)
    subclass_id[rows] = ids[clusters]

    entries = {entry["class_id"]: entry for entry in gallery.subclasses.get("classes", [])}
    for class_id in np.unique(labels).tolist():
        mine = rows[labels == class_id]
        names = {m["id"]: m["name"] for m in entries[class_id]["subclasses"]} if class_id in entries else {}
        entries[class_id] = _class_entry(gallery, class_id, mine, subclass_id[mine], names, partition)
    document: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "next_id": next_id,
        "engine": partition.engine,
        "seed": seed,
        "classes": [entries[class_id] for class_id in sorted(entries)],
    }
    others = np.flatnonzero((gallery.split != TRAIN) & np.isin(gallery.class_id, np.unique(labels)))
    subclass_id[others] = -1
    renewed = gallery.with_subclasses(subclass_id, document)
    if len(others):
        subclass_id[others] = renewed.nearest_subclass(gallery.embeddings[others], gallery.class_id[others]).id
        renewed = renewed.with_subclasses(subclass_id, document)
    return renewed


def _class_entry(
    gallery: Gallery, class_id: int, rows: np.ndarray, ids: np.ndarray, names: dict[int, str], partition: _Partition
) -> dict[str, Any]:
    """The entry of subclasses.json for one class; nameless subclasses get the free numbers from 1, largest first."""
    x = np.asarray(gallery.embeddings[rows], dtype=np.float32)
    found, compact, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    taken = {names[i] for i in found.tolist() if i in names}
    free = (str(n) for n in range(1, len(found) + len(taken) + 1) if str(n) not in taken)
    final = {i: names[i] if i in names else next(free) for i in found[np.argsort(-sizes, kind="stable")].tolist()}
    sums = np.zeros((len(found), x.shape[1]))
    np.add.at(sums, compact, x)
    squared = np.square(x - (sums / sizes[:, None])[compact]).sum(1)
    inertia = np.bincount(compact, squared)
    spread = _silhouettes(x, compact, sizes)
    members = [
        {"id": identity, "name": final[identity], "size": size, "inertia": float(inertia[n]), "silhouette": spread[n]}
        for n, (identity, size) in enumerate(zip(found.tolist(), sizes.tolist(), strict=True))
    ]
    return {
        "class_id": class_id,
        "k": len(members),
        "chosen_by": partition.chosen_by,
        "scores": partition.scores.get(class_id, {}),
        "subclasses": members,
    }


def _silhouettes(x: np.ndarray, clusters: np.ndarray, sizes: np.ndarray) -> list[float | None]:
    """Mean silhouette of each cluster; None where it is not defined, or too many rows make it too slow."""
    if not 1 < len(sizes) < len(x) or len(x) > SILHOUETTE_ROWS:
        return [None] * len(sizes)
    from sklearn.metrics import silhouette_samples

    return (np.bincount(clusters, silhouette_samples(x, clusters)) / sizes).tolist()


def _quality(x: np.ndarray, ids: np.ndarray) -> ClassQuality:
    k = len(np.unique(ids))
    return ClassQuality(k, inertia_ratio(x, ids), silhouette(x, ids) if k > 1 else None)
