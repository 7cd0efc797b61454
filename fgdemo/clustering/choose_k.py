"""The number of clusters of one set of rows. What the criteria mean, and how they are read, is in criteria/."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from fgdemo.clustering.batch import make_batch
from fgdemo.clustering.candidates import MAX_K, MIN_SIZE
from fgdemo.clustering.checks import as_count, as_labels, as_rows
from fgdemo.clustering.classwise import classwise_kmeans
from fgdemo.clustering.criteria.bic import bic
from fgdemo.clustering.criteria.stability import bootstrap_ari
from fgdemo.clustering.partition import RESTARTS, measure, partition, start_draws

__all__ = ["bic", "choose_k", "simplified_silhouette", "stability"]


def simplified_silhouette(x: Any, labels: Any) -> float:
    """Mean over rows of (b - a) / max(a, b), a and b the distances to the own and the nearest other centroid.

    Args:
        x: (N, D) rows.
        labels: (N,) clusters 0 to K-1, all used. A row alone in its cluster counts 0.

    Returns:
        A number in [-1, 1], or 0 by convention for a single cluster.
    """
    rows = as_rows(x)
    clusters = as_labels(labels, len(rows))
    batch = make_batch(rows[None], torch.tensor([len(rows)], device=rows.device))
    ids = torch.from_numpy(clusters).to(rows.device)[None, None]
    return float(measure(batch, ids, (int(clusters.max()) + 1,)).silhouette)


def stability(x: Any, k: int, *, seed: int = 0, restarts: int = RESTARTS, spherical: bool = False) -> float:
    """Mean adjusted Rand index between k-means of the rows and of bootstrap samples of them; 1 for k = 1."""
    rows = as_rows(x)
    k = as_count(k, "k (the number of clusters)", 1, len(rows))
    batch = make_batch(rows[None], torch.tensor([len(rows)], device=rows.device), spherical=spherical)
    admissible = torch.ones(1, 1, dtype=torch.bool, device=rows.device)
    drawn, principal = start_draws(seed, 1, k, restarts)
    uniform = torch.from_numpy(drawn).to(rows.device)
    labels, _ = partition(batch, (k,), admissible, uniform, principal=principal)
    return float(bootstrap_ari(batch, labels, (k,), admissible, seed))


def choose_k(
    x: Any,
    ks: Iterable[int] | None = None,
    *,
    criterion: str = "silhouette",
    seed: int = 0,
    spherical: bool = False,
    max_k: int = MAX_K,
    min_size: int = MIN_SIZE,
) -> tuple[int, dict[int, float]]:
    """The chosen K of one set of rows, and the criterion's score of each admissible candidate.

    Args and errors as in `classwise_kmeans`.
    """
    rows = as_rows(x)
    found = classwise_kmeans(
        rows,
        np.zeros(len(rows), np.int64),
        ks,
        seed=seed,
        spherical=spherical,
        select=criterion,
        max_k=max_k,
        min_size=min_size,
    )
    scores = dict(zip(found.ks, found.scores[criterion][0].tolist(), strict=True))
    return int(found.chosen[0]), {k: score for k, score in scores.items() if not np.isnan(score)}
