"""What the Re-cluster tab computes, without its widgets: views of a gallery's subclasses, each from the one before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fgdemo.checkpoint.schema import GALLERY_FILE
from fgdemo.errors import UserError
from fgdemo.palette import assign_styles
from fgdemo.terms import Terms, terms
from fgdemo.ui.scatter import Group, payload

if TYPE_CHECKING:
    from fgdemo.clustering import Projection
    from fgdemo.gallery import Gallery
    from fgdemo.pictures import Pictures
    from fgdemo.recluster import Reclustering
    from fgdemo.ui.session import App

PROJECTIONS_KEPT = 16


@dataclass(frozen=True)
class View:
    """One division of some classes of a checkpoint into subclasses, laid out in the plane.

    Attributes:
        checkpoint: its name in the picker.
        class_names: of the whole checkpoint.
        class_ids: the classes in view.
        rows: (n,) gallery rows of their training pictures; a point's number is its position here.
        projection: points (n, 2) of these rows.
        asked: the projection that was asked for; another one is drawn where there are too few pictures for it.
        frame: names the projection; equal frames have equal points.
        styles: look of every group.
        settings: arguments that led here; empty for the checkpoint's own subclasses.
        outcome: figures against the division before; None for the checkpoint's own subclasses.
        words: what the groups are called, and whether there are classes above them.
        pictures: where the pictures of rows come from.
    """

    checkpoint: str
    class_names: tuple[str, ...]
    gallery: Gallery
    class_ids: tuple[int, ...]
    rows: np.ndarray
    projection: Projection
    asked: str
    frame: str
    styles: dict[int, int]
    settings: dict[str, Any]
    outcome: Reclustering | None
    words: Terms
    pictures: Pictures

    @cached_property
    def group_ids(self) -> np.ndarray:
        """(n,) subclass id of every point; -1 - class id where a class has no subclasses."""
        return _group_ids(self.gallery, self.rows)

    @cached_property
    def groups(self) -> list[Group]:
        """The groups in view by class, then by subclass id; the class is not named where it means nothing."""
        found, first, sizes = np.unique(self.group_ids, return_index=True, return_counts=True)
        owners = self.gallery.class_id[self.rows[first]].tolist()
        members = self.gallery.members
        groups = [
            (
                class_id,
                Group(i, members[i]["name"] if i >= 0 else "none", self.class_label(class_id), n, self.styles[i]),
            )
            for i, class_id, n in zip(found.tolist(), owners, sizes.tolist(), strict=True)
        ]
        return [group for _, group in sorted(groups, key=lambda pair: (pair[0], pair[1].id))]

    def class_label(self, class_id: int) -> str:
        """The class's name, empty where one class holds all pictures."""
        return self.class_names[class_id] if self.words.labelled else ""

    def drawing(self, result: str) -> dict[str, Any]:
        """The value of the scatter; `result` is the id under which the view is kept."""
        ids = np.array([group.id for group in self.groups])
        order = np.argsort(ids)
        codes = order[np.searchsorted(ids, self.group_ids, sorter=order)]
        return payload(self.checkpoint, result, self.projection.points, codes, self.groups, frame=self.frame)


class Explorer:
    """Makes views; keeps the projections used last. Safe to call from several threads."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._projections: OrderedDict[tuple, Projection] = OrderedDict()

    def start(self, name: str | None, projection: str = "pca") -> View:
        """The checkpoint's own subclasses, all classes."""
        name = self._app.name(name)
        classifier = self._app.classifier(name)
        gallery = classifier.gallery
        if not len(gallery.train_rows):
            raise UserError(f"The gallery of {name} has no training pictures, so there is nothing to cluster.")
        class_ids = tuple(np.unique(gallery.class_id[gallery.train_rows]).tolist())
        return self._view(name, classifier.classes, gallery, class_ids, projection, {}, {}, None)

    def recluster(
        self,
        view: View,
        class_ids: Sequence[int],
        *,
        method: str,
        k: int | None,
        pca_dim: int | None,
        seed: int,
        projection: str,
        at_least: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> View:
        """Divide some classes (all when none is named) anew; `view` is the division before.

        `progress` is called with (classes done, classes) on the way; whatever it raises ends the work.
        """
        from fgdemo.recluster import recluster

        sizes = class_sizes(view.gallery)
        chosen = tuple(sorted(set(class_ids))) or tuple(sizes)
        unknown = [class_id for class_id in chosen if class_id not in sizes]
        if unknown:
            raise UserError(f"Class {unknown[0]} has no picture in this gallery; choose another.")
        if method == "hdbscan":
            k = None
        smallest = min(chosen, key=sizes.__getitem__)
        if k is not None and not 1 <= k <= sizes[smallest]:
            who = f"class {view.class_names[smallest]} has" if view.words.labelled else "there are"
            raise UserError(
                f"K is {k}, but {who} {sizes[smallest]} training pictures: choose K from 1 to {sizes[smallest]}."
            )
        most = min(view.gallery.dim, sum(sizes[class_id] for class_id in chosen))
        if pca_dim is not None and not 1 <= pca_dim <= most:
            raise UserError(
                f"{pca_dim} principal components are asked for: choose 1 to {most}, or 0 to cluster in the full space."
            )
        outcome = recluster(
            view.gallery,
            chosen,
            method=method,
            k=k,
            pca_dim=pca_dim,
            seed=seed,
            at_least=at_least,
            progress=progress,
        )
        if progress is not None:
            # a place to stop before a projection, which may take as long again
            progress(len(chosen), len(chosen))
        settings = {
            "classes": [view.class_names[class_id] for class_id in chosen],
            "method": method,
            "k": k,
            "pca": pca_dim,
            "seed": seed,
            "at_least": at_least,
        }
        names, before = view.class_names, view.styles
        return self._view(view.checkpoint, names, outcome.gallery, chosen, projection, before, settings, outcome)

    def project(self, view: View, projection: str) -> View:
        """The same division in another plane."""
        seed = _seed(view.settings)
        rows, points, frame = self._project(view.checkpoint, view.gallery, view.class_ids, projection, seed)
        return replace(view, rows=rows, projection=points, asked=projection, frame=frame)

    def _view(
        self,
        checkpoint: str,
        class_names: Sequence[str],
        gallery: Gallery,
        class_ids: tuple[int, ...],
        projection: str,
        styles: dict[int, int],
        settings: dict[str, Any],
        outcome: Reclustering | None,
    ) -> View:
        rows, points, frame = self._project(checkpoint, gallery, class_ids, projection, _seed(settings))
        looks = assign_styles(_group_ids(gallery, rows).tolist(), styles)
        return View(
            checkpoint=checkpoint,
            class_names=tuple(class_names),
            gallery=gallery,
            class_ids=class_ids,
            rows=rows,
            projection=points,
            asked=projection,
            frame=frame,
            styles=looks,
            settings=settings,
            outcome=outcome,
            words=terms(self._app.classifier(checkpoint).config),
            pictures=self._app.pictures,
        )

    def _project(
        self, checkpoint: str, gallery: Gallery, class_ids: tuple[int, ...], method: str, seed: int
    ) -> tuple[np.ndarray, Projection, str]:
        from fgdemo.clustering import project2d

        train = gallery.train_rows
        rows = train[np.isin(gallery.class_id[train], class_ids)]
        content = self._app.classifier(checkpoint).config["fgdemo"]["sha256"][GALLERY_FILE]
        key = (content, class_ids, method, seed)
        frame = f"{content[:16]}/{','.join(map(str, class_ids))}/{method}/{seed}"
        with self._lock:
            if key in self._projections:
                self._projections.move_to_end(key)
                return rows, self._projections[key], frame
        points = project2d(np.asarray(gallery.embeddings[rows], dtype=np.float32), method, seed=seed)
        with self._lock:
            self._projections[key] = points
            while len(self._projections) > PROJECTIONS_KEPT:
                self._projections.popitem(last=False)
        return rows, points, frame


def class_sizes(gallery: Gallery) -> dict[int, int]:
    """Training pictures of every class that has some."""
    ids, sizes = np.unique(gallery.class_id[gallery.train_rows], return_counts=True)
    return dict(zip(ids.tolist(), sizes.tolist(), strict=True))


def _group_ids(gallery: Gallery, rows: np.ndarray) -> np.ndarray:
    ids = gallery.subclass_id[rows].astype(np.int64)
    return np.where(ids >= 0, ids, -1 - gallery.class_id[rows].astype(np.int64))


def _seed(settings: dict[str, Any]) -> int:
    return settings.get("seed", 0)
