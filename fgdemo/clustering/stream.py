"""K-means of every class under every K over blocks of rows: more rows than memory holds, or spread over processes.

One pass counts, sums and samples; every class of the sample is clustered by `classwise_kmeans`, which also chooses K;
then Lloyd's algorithm goes on from there over all rows, a pass an iteration, with sums and counts in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.blocks import Rows
from fgdemo.clustering.candidates import MAX_K, MIN_SIZE
from fgdemo.clustering.checks import as_count, as_seed
from fgdemo.clustering.class_sample import ClassSample
from fgdemo.clustering.classwise import MIN_SHARE, classwise_kmeans
from fgdemo.clustering.farthest import Farthest
from fgdemo.clustering.lloyd import assign_rows, column_blocks, columns_of, scales, sizes_of, sums_of
from fgdemo.clustering.partition import RESTARTS, TOL
from fgdemo.clustering.ranks import Ranks
from fgdemo.clustering.result import ClasswiseClustering
from fgdemo.errors import UserError

SAMPLE_ROWS = 256
"""Rows of each class that the starts are clustered on, unless the largest K needs more (SAMPLE_OF_A_CLUSTER each)."""
SAMPLE_OF_A_CLUSTER = 32

MAX_PASSES = 25


def stream_kmeans(
    blocks: Iterable[tuple[Any, Any]],
    ks: Iterable[int] | None = None,
    *,
    seed: int = 0,
    restarts: int = RESTARTS,
    max_passes: int = MAX_PASSES,
    tol: float = TOL,
    mini_batch_passes: int = 0,
    init: Any = None,
    spherical: bool = False,
    select: str | int = "silhouette",
    max_k: int = MAX_K,
    min_size: int = MIN_SIZE,
    min_share: float = MIN_SHARE,
    sample: int | None = None,
    group: Any = None,
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ClasswiseClustering:
    """Cluster each class by itself under each K, seeing one block of rows at a time.

    Labels do not depend on the order of the rows, on the size of the blocks, or on how rows are spread over the
    processes of `group`, but for rounding: sums of a block are in float32, all others in float64.

    Memory beside one block: 8 bytes a row and K for labels, three (classes, sum(ks), D) tables in float64, and twice
    `sample` rows a class while these are drawn and clustered. Time: one pass to sample, then up to `max_passes`.

    Args:
        blocks: pairs of (n, D) rows and (n,) class ids from 0; gone through several times, so it must begin anew and
            give the same rows in the same order each time, as a list or `ArrayBlocks` does and a generator does not.
            Half precision is read as float32.
        ks, seed, restarts, init, spherical, select, max_k, min_size, min_share: as in `classwise_kmeans`, which runs on
            the sample: K is chosen there, `scores` are of the sample, and a K inadmissible there is so for all rows.
        max_passes: over all rows, at most; up to max(ks) more while some cluster is empty.
        tol: a problem (class, K) ends when a pass lowers its inertia by no more than this share.
        mini_batch_passes: of the passes, how many at first move the centroids after every block instead (Sculley,
            "Web-scale k-means clustering", WWW 2010). With 1, `max_passes=2` is the cheapest fit.
        sample: rows a class; by default SAMPLE_ROWS or SAMPLE_OF_A_CLUSTER * max(ks), whichever is more.
        group: a `torch.distributed` group whose processes hold the rows together, each giving its own `blocks`, of
            which some may have none; all must call. Every process gets the labels of its own rows, and all else of all
            rows.
        device: where to compute; by default where the first block is, or the processor where there is none.
        progress: called with (passes done, passes at most) after each; whatever it raises ends the fit.

    Returns:
        labels for the rows in the order of `blocks`. Centroids are the means of the labelled rows, inertia is around
        them, `iterations` counts passes.

    Raises:
        UserError: bad rows or options, blocks that change between passes, mini-batches over several processes.
    """
    max_passes = as_count(max_passes, "max_passes", 1)
    ranks = Ranks(group)
    mini_batch_passes = as_count(mini_batch_passes, "mini_batch_passes", 0, max_passes - 1)
    if mini_batch_passes and not ranks.alone:
        raise UserError("Mini-batches follow the blocks of one process: leave mini_batch_passes at 0 in a group.")
    ks = None if ks is None else [as_count(k, "each of ks", 1) for k in ks]
    largest = max(ks or [as_count(max_k, "max_k", 1)])
    limit = max(SAMPLE_ROWS, SAMPLE_OF_A_CLUSTER * largest) if sample is None else as_count(sample, "sample", largest)
    data = Rows(blocks, spherical=spherical, device=None if device is None else torch.device(device))
    rows, classes = data.survey(ClassSample(limit, as_seed(seed)), ranks)
    start = classwise_kmeans(
        rows,
        classes,
        ks,
        seed=seed,
        restarts=restarts,
        tol=tol,
        init=init,
        spherical=spherical,
        select=select,
        max_k=max_k,
        min_size=min_size,
        min_share=min_share,
    )
    del rows, classes
    fit = _Fit(data, start, ranks, tol)
    passes = 0
    # an empty cluster is worth another pass, or a few
    while fit.active.any() and (passes < max_passes or (fit.short() and passes < max_passes + largest)):
        fit.improve(moving=passes < mini_batch_passes)
        passes += 1
        if progress is not None:
            progress(min(passes, max_passes), max_passes)
    return fit.result(passes)


class _Fit:
    """Centroids that move, and the labels of the last pass."""

    def __init__(self, data: Rows, start: ClasswiseClustering, ranks: Ranks, tol: float) -> None:
        self.data, self.start, self.ranks, self.tol = data, start, ranks, tol
        device = data.origins.device
        centroids = torch.from_numpy(start.centroids).to(device).double() - data.origins[:, None]
        self.chosen = torch.from_numpy(start.chosen).to(device)
        ranks.from_first(centroids, self.chosen)
        self.blocks = column_blocks(start.ks, 1)
        first = torch.tensor([columns.start for _, _, columns in self.blocks], device=device)
        self.admissible = torch.isfinite(centroids[:, first, 0])
        self.of_column = torch.repeat_interleave(torch.tensor(start.ks, device=device))
        self.centroids = centroids.nan_to_num_()
        self.active = self.admissible.clone()
        self.counts = torch.zeros(centroids.shape[:2], dtype=torch.int64, device=device)
        self.inertia = torch.full(self.admissible.shape, torch.inf, dtype=torch.float64, device=device)
        self.drawn = torch.zeros_like(self.counts)
        self.labels = np.full((len(data.class_ids), len(start.ks)), -1, np.int64)

    def improve(self, *, moving: bool) -> None:
        """One pass: labels for the present centroids, centroids for those labels.

        With `moving` the centroids follow every block instead.
        """
        total = len(self.of_column)
        sums, counts = torch.zeros_like(self.centroids), torch.zeros_like(self.counts)
        inertia = torch.zeros_like(self.inertia)
        farthest = Farthest(self.centroids) if self.short() else None
        active = self.active.cpu().numpy()
        for ids, places, batch, block_ends in self.data.batches(active.any(1), total):
            labels, distances = assign_rows(batch, self.centroids[ids].float(), self.start.ks, 1)
            labels = torch.where(self.active[ids][..., None], labels, -1)
            columns = columns_of(labels, self.start.ks, 1)
            sums[ids] += sums_of(batch, columns, total)
            counts[ids] += sizes_of(columns, total)
            inertia[ids] += distances.sum(2, dtype=torch.float64)
            self._note(active[ids.cpu().numpy()], places, labels)
            if farthest is not None:
                farthest.see(ids, batch, columns, distances)
            if moving and block_ends:
                self._follow(sums, counts)
                sums.zero_(), counts.zero_()
        if moving:
            return
        self.ranks.add(sums, counts, inertia)
        self._settle(sums, counts, inertia)
        if farthest is not None:
            farthest.share(self.ranks)
            self._relocate(farthest)

    def short(self) -> bool:
        """Some cluster has no rows."""
        return bool(self._empty().any())

    def _empty(self) -> Tensor:
        """(C, T) bool: clusters of active problems that had no rows in the pass before."""
        seen = torch.isfinite(self.inertia) & self.active
        return seen[:, self.of_column] & (self.counts == 0)

    def _note(self, active: np.ndarray, places: np.ndarray, labels: Tensor) -> None:
        """Write down the labels of a batch's (C_b, M) active problems; others keep theirs."""
        c, position = np.nonzero(places >= 0)
        found = labels.cpu().numpy().transpose(0, 2, 1)[c, position]
        at = places[c, position]
        self.labels[at] = np.where(active[c], found, self.labels[at])

    def _follow(self, sums: Tensor, counts: Tensor) -> None:
        """Move each centroid towards the mean of its rows in the block, by their share of all it has had."""
        self.drawn += counts
        if self.data.spherical:
            # the sum of all directions so far, of which the centroid is the direction
            moved = self.centroids * (self.drawn - counts)[..., None] + sums
            fresh = moved * scales(self.drawn, moved.square().sum(2), True)[..., None]
        else:
            fresh = self.centroids + (sums - counts[..., None] * self.centroids) / self.drawn.clamp(min=1)[..., None]
        self.centroids = torch.where((counts > 0)[..., None], fresh, self.centroids)

    def _settle(self, sums: Tensor, counts: Tensor, inertia: Tensor) -> None:
        """Means, sizes and inertia of all rows for the active problems; those that no longer improve are done."""
        means = sums * scales(counts, sums.square().sum(2), self.data.spherical)[..., None]
        # around the means: sum of |x - m|² = sum of |x - c|² + 2 S·(c - m) + n(|m|² - |c|²), S the sum of n rows
        change = 2 * (sums * (self.centroids - means)).sum(2)
        change += counts * (means.square().sum(2) - self.centroids.square().sum(2))
        inertia = inertia.index_add(1, self.of_column, change).clamp_(min=0)
        live = self.active[:, self.of_column]
        self.centroids = torch.where((live & (counts > 0))[..., None], means, self.centroids)
        self.counts = torch.where(live, counts, self.counts)
        better = torch.isinf(self.inertia) | (self.inertia - inertia > self.tol * self.inertia)
        self.inertia = torch.where(self.active, inertia, self.inertia)
        empty = self._empty()
        short = torch.stack([empty[:, columns].any(1) for _, _, columns in self.blocks], 1)
        self.active = self.active & (better | short)

    def _relocate(self, farthest: Farthest) -> None:
        """Move the centroids of empty clusters to the farthest rows of the problem's clusters of largest inertia."""
        everywhere = self._empty()
        for _, _, columns in self.blocks:
            empty = everywhere[:, columns]
            classes = empty.any(1).nonzero()[:, 0]
            if not len(classes):
                continue
            empty = empty[classes]
            donors = farthest.inertia[classes, columns].masked_fill(self.counts[classes, columns] < 2, -1)
            donors = donors.argsort(dim=1, descending=True, stable=True)
            # the first empty cluster takes from the first donor, the second from the second
            turn = (empty.cumsum(1) - 1).clamp(min=0)
            rows = farthest.rows[classes, columns].gather(
                1, donors.gather(1, turn)[..., None].expand(-1, -1, farthest.rows.shape[2])
            )
            here = self.centroids[classes, columns]
            self.centroids[classes, columns] = torch.where(empty[..., None], rows.double(), here)

    def result(self, passes: int) -> ClasswiseClustering:
        """All of it, in the rows' original coordinates."""
        good = self.admissible[:, self.of_column, None]
        centroids = torch.where(good, self.centroids + self.data.origins[:, None], torch.nan)
        averages = self.data.averages
        if self.data.spherical:
            averages = torch.where(averages.isnan(), averages, torch.nn.functional.normalize(averages, dim=1))
        return replace(
            self.start,
            labels=self.labels,
            centroids=centroids.float().cpu().numpy(),
            sizes=self.counts.cpu().numpy(),
            inertia=torch.where(self.admissible, self.inertia, torch.nan).cpu().numpy(),
            means=averages.float().cpu().numpy(),
            chosen=self.chosen.cpu().numpy(),
            class_ids=self.data.class_ids,
            iterations=passes,
        )
