"""Some classes again, while the rest stays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fgdemo.clustering.checks import as_count, as_labels, as_rows
from fgdemo.clustering.classwise import classwise_kmeans
from fgdemo.clustering.result import ClasswiseClustering
from fgdemo.errors import UserError


def recluster_classes(
    found: ClasswiseClustering, x: Any, classes: Iterable[int], **options: Any
) -> ClasswiseClustering:
    """Cluster some classes again from where they stand, on features that have changed; all other classes stay.

    Args:
        found: the clustering so far.
        x: (N, D) features of the rows that `found` labels, in their order.
        classes: ids of the classes.
        options: as in `classwise_kmeans`, without ks and init. Cluster ids descend from those of before.

    Raises:
        UserError: a class without rows, or what `classwise_kmeans` refuses.
    """
    rows = as_rows(x)
    as_labels(found.class_ids, len(rows))
    listed = [as_count(c, "each of classes", 0, len(found.chosen) - 1) for c in classes]
    wanted = np.unique(np.array(listed, np.int64))
    empty = wanted[found.chosen[wanted] == 0]
    if len(empty):
        raise UserError(f"Class {empty[0]} has no rows to cluster: leave it out.")
    if not len(wanted):
        return found
    mine = np.flatnonzero(np.isin(found.class_ids, wanted))
    compact = np.searchsorted(wanted, found.class_ids[mine])
    sizes = np.bincount(compact)
    ks = [k for k in found.ks if k <= sizes.max()]
    columns = np.isin(found.columns, ks)
    anew = classwise_kmeans(
        rows[torch.from_numpy(mine).to(rows.device)], compact, ks, init=found.centroids[wanted][:, columns], **options
    )
    positions = np.isin(found.ks, ks).nonzero()[0]
    fresh = {
        name: np.array(getattr(found, name)) for name in ("labels", "centroids", "sizes", "inertia", "means", "chosen")
    }
    fresh["labels"][np.ix_(mine, positions)] = anew.labels
    for name in ("centroids", "sizes"):
        fresh[name][np.ix_(wanted, columns.nonzero()[0])] = getattr(anew, name)
    fresh["inertia"][np.ix_(wanted, positions)] = anew.inertia
    fresh["means"][wanted], fresh["chosen"][wanted] = anew.means, anew.chosen
    scores = {name: np.array(values) for name, values in found.scores.items()}
    for name, values in anew.scores.items():
        table = scores.setdefault(name, np.full(found.inertia.shape, np.nan))
        table[np.ix_(wanted, positions)] = values
    return replace(found, **fresh, scores=scores, iterations=anew.iterations)
