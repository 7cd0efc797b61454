"""Subclasses that a person has looked at, as the start or the law of a training: `--subclasses`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fgdemo.checkpoint import SCHEMA_VERSION, read_checkpoint
from fgdemo.checkpoint.hub import resolve
from fgdemo.clustering import ClasswiseClustering
from fgdemo.clustering.follow import label_means
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery

if TYPE_CHECKING:
    from train.methods import DataInfo

LLOYD = 50
"""Iterations after which free pictures stay where they are."""


@dataclass(frozen=True)
class GivenSubclasses:
    """A division of some training pictures, by their keys.

    Attributes:
        subclass_id: (N,) int64 id of each training picture, -1 where none is given.
        clusters: (N,) int64 position of that id among those of its class, -1 likewise.
        ks: class id -> number of subclasses given.
        locked: (N,) bool, pictures that stay in their subclass.
        locked_classes: class ids that keep the given number of subclasses.
        document: content of a subclasses.json with ids and names.
    """

    subclass_id: np.ndarray
    clusters: np.ndarray
    ks: dict[int, int]
    locked: np.ndarray
    locked_classes: tuple[int, ...]
    document: dict[str, Any]

    @classmethod
    def read(cls, source: str, data: DataInfo, lock: str) -> GivenSubclasses:
        """From a checkpoint (a folder or a Hub id), or a CSV file with the columns key and subclass.

        Args:
            lock: "all" subclasses stay as they are, "edited" ones, or "none" does.

        Raises:
            UserError: neither, other classes, or no picture of the training split.
        """
        path = Path(source).expanduser()
        if path.suffix == ".csv" or path.is_file():
            ids, document = _from_table(path, data)
            edited = {m["id"] for entry in document["classes"] for m in entry["subclasses"]}
        else:
            ids, document, edited = _from_checkpoint(source, data)
        known = ids >= 0
        if not known.any():
            raise UserError(
                f"{source} names no picture of the training split: its keys are the paths below the data set's folder."
            )
        document = _with_members(document, ids)
        clusters, ks = np.full(len(ids), -1, np.int64), {}
        chosen = {"all": None, "edited": edited, "none": set()}[lock]
        locked, locked_classes = np.zeros(len(ids), bool), []
        for entry in document["classes"]:
            members = [member["id"] for member in entry["subclasses"]]
            ks[entry["class_id"]] = len(members)
            for position, identity in enumerate(members):
                clusters[ids == identity] = position
            stay = [identity for identity in members if chosen is None or identity in chosen]
            locked |= np.isin(ids, stay)
            if stay:
                locked_classes.append(entry["class_id"])
        return cls(ids, clusters, ks, locked, tuple(locked_classes), document)

    def impose(
        self, found: ClasswiseClustering, features: Tensor, before: np.ndarray, pictures: np.ndarray
    ) -> ClasswiseClustering:
        """A clustering in which classes with locked subclasses have just those they were given.

        Locked pictures stay in theirs. The others of the class go to the nearest mean, as in Lloyd's algorithm, from
        where they stood before, or to the nearest mean of what is known.

        Args:
            found: of some of the training pictures.
            features: (n, D), theirs.
            before: (N, M) clusters of all training pictures so far, -1 for none.
            pictures: (n,) which they are.
        """
        labels, inertia, chosen = found.labels.copy(), found.inertia.copy(), found.chosen.copy()
        for c in self.locked_classes:
            rows = np.flatnonzero(found.class_ids == c)
            if not len(rows):
                continue
            theirs, position = pictures[rows], found.ks.index(self.ks[c])
            given, locked = self.clusters[theirs], self.locked[theirs]
            now = np.where(locked | (before[theirs, position] < 0), given, before[theirs, position])
            labels[rows] = -1
            labels[rows, position], spread = _constrained(features, rows, now, locked, self.ks[c])
            inertia[c] = np.nan
            inertia[c, position] = spread
            chosen[c] = self.ks[c]
        return replace(found, labels=labels, inertia=inertia, chosen=chosen)


def _constrained(
    features: Tensor, rows: np.ndarray, labels: np.ndarray, locked: np.ndarray, k: int
) -> tuple[np.ndarray, float]:
    """Lloyd's algorithm on some rows, of which the locked ones keep their label; labels, and the inertia."""
    x = features[torch.from_numpy(rows).to(features.device)]
    one_class = np.zeros(len(rows), np.int64)
    for _ in range(LLOYD):
        means = label_means(x, one_class, labels[:, None], (k,))[0]
        # a cluster that has lost its last picture attracts none
        gaps = torch.cdist(x, means.nan_to_num()).square().masked_fill(means.isnan().any(1), torch.inf)
        nearest = gaps.argmin(1).cpu().numpy()
        fresh = np.where(locked, labels, nearest)
        if np.array_equal(fresh, labels):
            break
        labels = fresh
    own = gaps.gather(1, torch.from_numpy(labels)[:, None].to(gaps.device))
    return labels, float(own.sum())


def _from_checkpoint(source: str, data: DataInfo) -> tuple[np.ndarray, dict[str, Any], set[int]]:
    """Ids of the training pictures, the document, and the ids that a person has edited."""
    checkpoint = read_checkpoint(resolve(source))
    gallery = Gallery.from_checkpoint(checkpoint)
    names = tuple(checkpoint.config["label_names"])
    if names != data.class_names:
        raise UserError(f"The classes of the checkpoint {source} are not those of the data set: choose another.")
    ids = _by_key(gallery.keys, gallery.subclass_id, data.keys)
    document = checkpoint.subclasses
    edited = {m["id"] for entry in document["classes"] for m in entry["subclasses"] if m.get("edited")}
    return ids, document, edited


def _from_table(path: Path, data: DataInfo) -> tuple[np.ndarray, dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"key", "subclass"} <= set(reader.fieldnames or ()):
                raise UserError(f'{path} needs a first line with the columns "key" and "subclass".')
            pairs = [(row["key"], (row["subclass"] or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table of keys and subclasses ({error}).") from error
    row_of = {key: row for row, key in enumerate(data.keys.tolist())}
    named = {row_of[key]: name for key, name in pairs if key in row_of and name}
    order: dict[tuple[int, str], int] = {}
    ids = np.full(len(data.keys), -1, np.int64)
    for row in sorted(named):
        ids[row] = order.setdefault((int(data.targets[row]), named[row]), len(order))
    classes: dict[int, list[dict[str, Any]]] = {}
    for (class_id, name), identity in order.items():
        classes.setdefault(class_id, []).append({"id": identity, "name": name, "size": 0})
    entries = [
        {"class_id": c, "k": len(members), "chosen_by": "given", "scores": {}, "subclasses": members}
        for c, members in sorted(classes.items())
    ]
    document = {"schema": SCHEMA_VERSION, "next_id": len(order), "engine": "given", "seed": 0, "classes": entries}
    return ids, document


def _by_key(keys: Sequence[str], values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(N,) value of each wanted key, -1 where it has none."""
    found = dict(zip(keys, np.asarray(values).tolist(), strict=True))
    return np.array([found.get(key, -1) for key in wanted.tolist()], np.int64)


def _with_members(document: dict[str, Any], ids: np.ndarray) -> dict[str, Any]:
    """The document with the subclasses that hold one of the pictures, and their numbers of pictures."""
    sizes = np.bincount(ids[ids >= 0], minlength=document["next_id"])
    entries = []
    for entry in document["classes"]:
        members = [{**m, "size": int(sizes[m["id"]])} for m in entry["subclasses"] if sizes[m["id"]]]
        if members:
            entries.append({**entry, "k": len(members), "subclasses": members})
    plain = {name: value for name, value in document.items() if name != "ks"}
    return {**plain, "classes": entries}
