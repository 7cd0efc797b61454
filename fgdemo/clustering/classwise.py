"""K-means of every class under every candidate K, in one call, and the choice of K for each class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import class_groups, gather_batch, make_batch, rows_of_classes
from fgdemo.clustering.candidates import MAX_K, MIN_SIZE, admissible_ks, as_candidates, chosen_ks, largest_up_to
from fgdemo.clustering.checks import as_choice, as_count, as_labels, as_rows, as_seed
from fgdemo.clustering.criteria import CRITERIA, Division
from fgdemo.clustering.enlarge import enlarge
from fgdemo.clustering.kmeans import kmeans, pick_engine
from fgdemo.clustering.lloyd import column_blocks
from fgdemo.clustering.partition import MAX_ITER, RESTARTS, TOL, Measures, measure, partition, start_draws
from fgdemo.clustering.result import ClasswiseClustering
from fgdemo.clustering.workers import worker_map
from fgdemo.errors import UserError

MIN_SHARE = 0.02
"""Smallest share of a class that a cluster of an automatically chosen K may hold."""


def classwise_kmeans(
    x: Any,
    labels: Any,
    ks: Iterable[int] | None = None,
    *,
    engine: str = "auto",
    seed: int = 0,
    restarts: int = RESTARTS,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
    init: Any = None,
    spherical: bool = False,
    select: str | int = "silhouette",
    max_k: int = MAX_K,
    min_size: int = MIN_SIZE,
    min_share: float = MIN_SHARE,
    at_least: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> ClasswiseClustering:
    """Cluster each class by itself under each K, and choose a K per class.

    A K > 1 is admissible for a class that has at least K distinct rows and at least K * min_size rows. Engine "torch"
    works on classes of similar size, all K and all restarts in the same batched operations, on the device of x (on a
    processor several such batches side by side); "faiss" and "sklearn" solve one problem after the other.

    Args:
        x: (N, D) numpy array or tensor on any device.
            Half precision is read as float32; every sum over rows is in float32 or float64.
        labels: (N,) class ids from 0. Classes without rows are allowed: their K is 0.
        ks: candidates; by default 1 to max_k, as far as the largest class admits.
        engine, seed, restarts, max_iter, tol, spherical: as in `kmeans`.
        init: a warm start, a `ClasswiseClustering` of the same ks or a (C, sum(ks), D) array with NaN where nothing
            is known. Cluster ids then descend from those of the start; `restarts` is ignored.
        select: a name of `CRITERIA` (see criteria/), or a K for all classes, which becomes the largest
            admissible candidate up to it where a class is too small.
        max_k: largest default candidate.
        min_size: rows needed per cluster, on average, for a K to be admissible.
        min_share: a K whose smallest cluster has less than this share of the class's rows, or fewer than min_size of
            them, is not chosen by a criterion: outliers are no subclass.
        at_least: rows that every cluster of every K gets (`enlarge`); a K needs K times as many to be admissible.
        progress: called with (classes done, classes) from time to time; whatever it raises ends the computation.

    Raises:
        UserError: bad features, labels, candidates, or names.
    """
    rows = as_rows(x)
    classes = as_labels(labels, len(rows))
    sizes = np.bincount(classes)
    seed = as_seed(seed)
    min_size = as_count(min_size, "min_size", 1)
    at_least = as_count(at_least, "at_least", 1)
    needed = max(min_size, at_least)
    candidates = as_candidates(ks, int(sizes.max()), as_count(max_k, "max_k", 1), needed)
    if isinstance(select, str):
        as_choice(select, "criterion", tuple(CRITERIA))
    else:
        select = as_count(select, "select (the number of clusters)", 1, max(candidates))
    options = {
        "restarts": as_count(restarts, "restarts", 1),
        "max_iter": as_count(max_iter, "max_iter", 1),
        "tol": tol,
    }
    problems = len(sizes) * len(candidates)
    engine = pick_engine(engine, rows.device, k=max(candidates), spherical=spherical, problems=problems)
    start = _start(init, (len(sizes), sum(candidates), rows.shape[1]), candidates, rows.device)
    table = _Table(classes, len(sizes), candidates, rows.shape[1])
    uniform, principal = start_draws(seed, len(sizes), max(candidates), restarts)

    def solve(group: np.ndarray) -> tuple[_Group, _Solution | None]:
        where = rows_of_classes(classes, sizes, group)
        batch = gather_batch(rows, where, spherical=spherical)
        admissible = admissible_ks(batch, candidates, needed, seed)
        tried = admissible.any(0)
        means = torch.nn.functional.normalize(batch.x.sum(1)) if spherical else batch.mean
        part = _Group(group, where, tuple(np.array(candidates)[tried.cpu().numpy()].tolist()), means)
        if not part.ks:
            return part, None
        admissible = admissible[:, tried]
        part_start = None if start is None else start[torch.from_numpy(group).to(start.device)][:, table.columns(part)]
        backend = rows.device.type
        if engine == "torch":
            drawn = torch.from_numpy(uniform[group][:, : max(part.ks)]).to(rows.device)
            found, iterations = partition(
                batch, part.ks, admissible, drawn, principal=principal, init=part_start, max_iter=max_iter, tol=tol
            )
        else:
            found, iterations, backend = _loop(
                rows, part, admissible, part_start, engine=engine, seed=seed, spherical=spherical, **options
            )
        # inadmissible pairs have no clusters
        found = torch.where(admissible[..., None], found, -1)
        if at_least > 1:
            found = enlarge(batch, found, part.ks, at_least)
        measures = measure(batch, found, part.ks)
        flat = make_batch(batch.x, batch.sizes) if spherical else batch
        flat_measures = measure(flat, found, part.ks) if spherical else measures
        division = Division(batch, flat, found, measures, flat_measures, part.ks, admissible, seed)
        scores = {"silhouette": flat_measures.silhouette, **CRITERIA["bic"].score(division)}
        if isinstance(select, str):
            scores |= CRITERIA[select].score(division)
        return part, _Solution(found, measures, admissible, scores, iterations, backend)

    most_iterations, backend = 0, rows.device.type
    done, present = 0, int((sizes > 0).sum())
    groups = class_groups(sizes, restarts * sum(candidates), rows.shape[1], rows.device)
    # the other engines bring their own threads
    with worker_map(len(groups) if engine == "torch" else 1, rows.device) as run:
        for part, solution in run(solve, groups):
            done += len(part.classes)
            table.write(part, solution)
            if solution is not None:
                most_iterations, backend = max(most_iterations, solution.iterations), solution.backend
                if progress is not None:
                    progress(done, present)
    return table.result(
        sizes, select, min_size, min_share, seed=seed, engine=engine, backend=backend, iterations=most_iterations
    )


def _start(init: Any, shape: tuple[int, int, int], candidates: tuple[int, ...], device: torch.device) -> Tensor | None:
    if init is None:
        return None
    if isinstance(init, ClasswiseClustering):
        if init.ks != candidates:
            raise UserError(f"The warm start was clustered under ks {init.ks}, not {candidates}: use the same ks.")
        init = init.centroids
    start = torch.as_tensor(init, dtype=torch.float32, device=device)
    if start.shape != shape:
        raise UserError(f"init must have shape (classes, sum(ks), D) = {shape}, not {tuple(start.shape)}.")
    return start


@dataclass(frozen=True)
class _Group:
    """Classes (C_g,) that share a batch, their row indices (C_g, n) with -1 as padding, the ks worth trying, and the
    classes' means (C_g, D)."""

    classes: np.ndarray
    rows: np.ndarray
    ks: tuple[int, ...]
    means: Tensor


@dataclass(frozen=True)
class _Solution:
    """Of a group: labels (C_g, M, n) int64, what is measured on them, admissible pairs (C_g, M), scores (C_g, M)."""

    labels: Tensor
    measures: Measures
    admissible: Tensor
    scores: Mapping[str, Tensor]
    iterations: int
    backend: str


def _loop(
    x: Tensor, group: _Group, admissible: Tensor, start: Tensor | None, **options: Any
) -> tuple[Tensor, int, str]:
    """One `kmeans` after the other; labels (C_g, M, n) int64, most iterations, backend."""
    labels = np.full((len(group.classes), len(group.ks), group.rows.shape[1]), -1, np.int64)
    iterations, backend = 0, x.device.type
    for c, position in zip(*admissible.cpu().numpy().nonzero(), strict=True):
        k = group.ks[position]
        rows = group.rows[c][group.rows[c] >= 0]
        init = None if start is None else start[c, column_blocks(group.ks, 1)[position][2]]
        if init is not None and not torch.isfinite(init).all():
            init = None
        found = kmeans(x[torch.from_numpy(rows).to(x.device)], k, init=init, **options)
        labels[c, position, : len(rows)] = found.labels
        iterations, backend = max(iterations, found.iterations), found.backend
    return torch.from_numpy(labels).to(x.device), iterations, backend


class _Table:
    """The result's arrays, filled group by group."""

    def __init__(self, class_ids: np.ndarray, classes: int, ks: tuple[int, ...], dim: int):
        self.ks = ks
        self.class_ids = class_ids
        self.labels = np.full((len(class_ids), len(ks)), -1, np.int64)
        self.centroids = np.full((classes, sum(ks), dim), np.nan, np.float32)
        self.sizes = np.zeros((classes, sum(ks)), np.int64)
        self.inertia = np.full((classes, len(ks)), np.nan)
        self.means = np.full((classes, dim), np.nan, np.float32)
        self.scores: defaultdict[str, np.ndarray] = defaultdict(lambda: np.full((classes, len(ks)), np.nan))
        self.column_ks = np.repeat(ks, ks)

    def columns(self, group: _Group) -> np.ndarray:
        return np.flatnonzero(np.isin(self.column_ks, group.ks))

    def write(self, group: _Group, solution: _Solution | None) -> None:
        """`solution` is None where no candidate is admissible to any of the classes."""
        self.means[group.classes] = group.means.cpu().numpy()
        if solution is None:
            return
        positions = np.isin(self.ks, group.ks).nonzero()[0]
        real = group.rows >= 0
        # (C_g, M, n) to one line a row
        lines = solution.labels.cpu().numpy().transpose(0, 2, 1)[real]
        self.labels[np.ix_(group.rows[real], positions)] = lines
        good = solution.admissible.cpu().numpy()
        columns = np.ix_(group.classes, self.columns(group))
        good_columns = np.repeat(good, group.ks, axis=1)
        centroids = solution.measures.centroids.cpu().numpy()
        self.centroids[columns] = np.where(good_columns[..., None], centroids, np.nan)
        self.sizes[columns] = solution.measures.sizes.cpu().numpy()
        at = np.ix_(group.classes, positions)
        self.inertia[at] = np.where(good, solution.measures.inertia.cpu().numpy(), np.nan)
        for name, values in solution.scores.items():
            self.scores[name][at] = np.where(good, values.cpu().numpy(), np.nan)

    def result(
        self, sizes: np.ndarray, select: str | int, min_size: int, min_share: float, **provenance: Any
    ) -> ClasswiseClustering:
        smallest = np.stack([self.sizes[:, c].min(1) for _, (_, _, c) in self._blocks()], 1)
        floor = np.maximum(min_size, min_share * sizes)
        eligible = (smallest >= floor[:, None]) | (np.array(self.ks) == 1)
        if isinstance(select, str):
            scores = defaultdict(lambda: np.full(self.inertia.shape, np.nan))
            scores |= {name: np.where(eligible, values, np.nan) for name, values in self.scores.items()}
            position = CRITERIA[select].choose(self.ks, scores)
        else:
            position = largest_up_to(select, self.ks, np.isfinite(self.inertia))
        wanted = {"silhouette", "bic", *([select] if isinstance(select, str) else [])}
        return ClasswiseClustering(
            ks=self.ks,
            labels=self.labels,
            centroids=self.centroids,
            columns=self.column_ks,
            sizes=self.sizes,
            inertia=self.inertia,
            means=self.means,
            chosen=chosen_ks(position, self.ks, sizes),
            scores={name: self.scores[name] for name in sorted({*self.scores, *wanted})},
            class_ids=self.class_ids,
            **provenance,
        )

    def _blocks(self) -> Iterator[tuple[int, tuple[int, slice, slice]]]:
        return enumerate(column_blocks(self.ks, 1))
