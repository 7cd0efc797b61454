"""A gallery under a new partition of its classes: who is who, the document of subclasses, hypotheses of K."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgdemo.checkpoint import SCHEMA_VERSION
from fgdemo.clustering import match_ids
from fgdemo.clustering.quality import SILHOUETTE_ROWS
from fgdemo.gallery import TRAIN, Gallery


@dataclass(frozen=True)
class Partition:
    """Clusters of n rows, each inside its class, with what chose their number.

    Attributes:
        labels: (n,) cluster 0..k-1 inside the class of each row.
        scores: class id -> K as text -> score of what chose k.
        chosen_by: the criterion's name, "given", or the method's name.
        engine: method and engine.
        sampled: rows of the seeded sample that a method quadratic in N ran on, by class id, where it did.
        noise: rows that the method called noise.
        hypotheses: K -> (n,) clusters under every K that was tried, -1 where a class does not admit it.
        columns: (n,) column in the network's head of each row's cluster; None where no head stands behind them.
    """

    labels: np.ndarray
    scores: dict[int, dict[str, float]]
    chosen_by: str
    engine: str
    sampled: dict[int, int]
    noise: int
    hypotheses: dict[int, np.ndarray]
    columns: np.ndarray | None = None


def renew(
    gallery: Gallery, rows: np.ndarray, labels: np.ndarray, partition: Partition, seed: int, ks: Sequence[int] | None
) -> Gallery:
    """The gallery under the new partition of `rows`, whose ids follow the old ones where they can.

    Args:
        rows: (n,) all training rows of some classes.
        labels: (n,) their class ids.
        ks: the K whose clusters `Gallery.hypotheses` holds; None for a gallery without them.
    """
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
        mine = labels == class_id
        names = {m["id"]: m["name"] for m in entries[class_id]["subclasses"]} if class_id in entries else {}
        entries[class_id] = _class_entry(gallery, class_id, rows[mine], subclass_id[rows[mine]], names, partition, mine)
    document: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "next_id": next_id,
        "engine": partition.engine,
        "seed": seed,
        "classes": [entries[class_id] for class_id in sorted(entries)],
    }
    others = np.flatnonzero((gallery.split != TRAIN) & np.isin(gallery.class_id, np.unique(labels)))
    table = None
    if ks is not None:
        document["ks"] = list(ks)
        table = _hypotheses(gallery, rows, others, ks, partition.hypotheses)
    subclass_id[others] = -1
    renewed = gallery.with_subclasses(subclass_id, document, hypotheses=table)
    if len(others):
        subclass_id[others] = renewed.nearest_subclass(gallery.embeddings[others], gallery.class_id[others]).id
        renewed = renewed.with_subclasses(subclass_id, document)
    return renewed


def _class_entry(
    gallery: Gallery,
    class_id: int,
    rows: np.ndarray,
    ids: np.ndarray,
    names: dict[int, str],
    partition: Partition,
    mine: np.ndarray,
) -> dict[str, Any]:
    """The entry of subclasses.json for one class; nameless subclasses get the free numbers from 1, largest first.

    `mine` picks the class's rows out of those of the partition.
    """
    x = np.asarray(gallery.embeddings[rows], dtype=np.float32)
    found, first, compact, sizes = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
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
    if partition.columns is not None:
        for member, column in zip(members, partition.columns[mine][first].tolist(), strict=True):
            member["column"] = column
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


def _hypotheses(
    gallery: Gallery, rows: np.ndarray, others: np.ndarray, ks: Sequence[int], found: dict[int, np.ndarray]
) -> np.ndarray:
    """(N, M) int16 table of `Gallery.hypotheses` with new lines for `rows` and for the `others` of their classes."""
    if gallery.subclasses.get("ks") == list(ks):
        table = np.array(gallery.hypotheses)
    else:
        table = np.full((len(gallery), len(ks)), -1, np.int16)
    table[others] = -1
    none = np.full(len(rows), -1)
    table[rows] = np.stack([found.get(k, none) for k in ks], axis=1)
    classes = gallery.class_id[rows]
    for class_id in np.unique(gallery.class_id[others]).tolist():
        mine, followers = rows[classes == class_id], others[gallery.class_id[others] == class_id]
        x, y = (np.asarray(gallery.embeddings[part], dtype=np.float32) for part in (mine, followers))
        for position in range(len(ks)):
            numbers, compact = np.unique(table[mine, position], return_inverse=True)
            directions = np.zeros((len(numbers), x.shape[1]), np.float32)
            np.add.at(directions, compact, x)
            directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), np.finfo(np.float32).tiny)
            table[followers, position] = numbers[(y @ directions.T).argmax(1)]
    return table
