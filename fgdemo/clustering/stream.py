"""K-means of every class under every K over blocks of rows: more rows than memory holds, or spread over processes.

One pass counts, sums and samples; every class of the sample is clustered by `classwise_kmeans`, which also chooses K;
then Lloyd's algorithm goes on from there over all rows, a pass an iteration, with sums and counts in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch, class_groups, rows_at, rows_of_classes
from fgdemo.clustering.candidates import MAX_K, MIN_SIZE
from fgdemo.clustering.checks import as_count, as_labels, as_rows, as_seed
from fgdemo.clustering.class_sample import ClassSample
from fgdemo.clustering.classwise import MIN_SHARE, classwise_kmeans
from fgdemo.clustering.lloyd import assign_rows, column_blocks, columns_of, scales, sizes_of, sums_of
from fgdemo.clustering.partition import RESTARTS, TOL
from fgdemo.clustering.ranks import Ranks
from fgdemo.clustering.result import ClasswiseClustering
from fgdemo.errors import UserError

SAMPLE_ROWS = 256
"""Rows of each class that the starts are clustered on, unless the largest K needs more (SAMPLE_OF_A_CLUSTER each)."""
SAMPLE_OF_A_CLUSTER = 32

MAX_PASSES = 25
BLOCK_ROWS = 1 << 16


@dataclass(frozen=True)
class ArrayBlocks:
    """Consecutive rows of a (N, D) array with (N,) class ids, such as a memory-mapped .npy file, `size` at a time."""

    rows: Any
    labels: Any
    size: int = BLOCK_ROWS

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for start in range(0, len(self.rows), self.size):
            part = slice(start, start + self.size)
            yield self.rows[part], self.labels[part]


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
        max_passes: over all rows, at most.
        tol: a problem (class, K) ends when a pass lowers its inertia by no more than this share.
        mini_batch_passes: of the passes, how many at first move the centroids after every block instead (Sculley,
            "Web-scale k-means clustering", WWW 2010). With 1, `max_passes=2` is the cheapest fit.
        sample: rows a class; by default SAMPLE_ROWS or SAMPLE_OF_A_CLUSTER * max(ks), whichever is more.
        group: a `torch.distributed` group whose processes hold the rows together, each giving its own `blocks`; all
            must call. Every process gets the labels of its own rows, and all else of all rows.
        device: where to compute; by default where the first block is.
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
    data = _Rows(blocks, spherical=spherical, device=None if device is None else torch.device(device))
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


class _Rows:
    """The blocks as tensors, and what is known of their classes.

    `averages` (C, D) of their rows in float64, and `origins`, what is subtracted: those, or 0 where spherical.
    """

    def __init__(self, blocks: Iterable[tuple[Any, Any]], *, spherical: bool, device: torch.device | None) -> None:
        self.blocks, self.spherical, self.device = blocks, spherical, device
        self.class_ids = np.zeros(0, np.int64)
        self.averages = self.origins = torch.zeros(0)

    def survey(self, sample: ClassSample, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """Count, average and sample; the sampled rows and their classes."""
        sums = counts = None
        seen = []
        for rows, labels in self:
            seen.append(labels)
            classes = torch.from_numpy(labels).to(rows.device)
            most = int(labels.max()) + 1
            if sums is None:
                sums, counts = rows.new_zeros(0, rows.shape[1], dtype=torch.float64), classes.new_zeros(0)
            if most > len(sums):
                sums = torch.cat([sums, sums.new_zeros(most - len(sums), sums.shape[1])])
                counts = torch.cat([counts, counts.new_zeros(most - len(counts))])
            sums.index_add_(0, classes, rows.double())
            counts += torch.bincount(classes, minlength=len(counts))
            sample.add(rows.float(), classes)
        if sums is None:
            raise UserError("There are no rows to cluster: every process needs at least one block.")
        most = torch.tensor([len(sums)], device=sums.device)
        ranks.largest(most)
        more = int(most) - len(sums)
        sums, counts = torch.nn.functional.pad(sums, (0, 0, 0, more)), torch.nn.functional.pad(counts, (0, more))
        ranks.add(sums, counts)
        self.class_ids = np.concatenate(seen)
        self.averages = sums / counts[:, None]
        self.origins = torch.zeros_like(sums) if self.spherical else self.averages.nan_to_num()
        return sample.result(ranks)

    def __iter__(self) -> Iterator[tuple[Tensor, np.ndarray]]:
        """Rows (n, D), of unit norm where spherical, and their classes, block by block."""
        dim = None
        for given, labels in self.blocks:
            if not len(labels):
                continue
            rows = as_rows(given)
            classes = as_labels(labels, len(rows))
            self.device = rows.device if self.device is None else self.device
            dim = rows.shape[1] if dim is None else dim
            if rows.shape[1] != dim:
                raise UserError(f"A block has {rows.shape[1]} dimensions where those before have {dim}.")
            rows = rows.to(self.device)
            yield (torch.nn.functional.normalize(rows, dim=1) if self.spherical else rows), classes

    def batches(self, wanted: np.ndarray, columns: int) -> Iterator[tuple[Tensor, np.ndarray, Batch, bool]]:
        """(class ids, (C_b, n) places among all rows or -1, their batch, whether its block ends) of wanted classes."""
        seen = 0
        for rows, labels in self:
            if not np.array_equal(labels, self.class_ids[seen : seen + len(labels)]):
                raise UserError("blocks gave other rows than before: give what can be gone through again, as a list.")
            sizes = np.bincount(labels, minlength=len(wanted)) * wanted
            groups = class_groups(sizes, columns, rows.shape[1], rows.device)
            counts = np.bincount(labels, minlength=len(wanted))
            for number, group in enumerate(groups):
                inside = rows_of_classes(labels, counts, group)
                ids = torch.from_numpy(group).to(rows.device)
                batch = self._batch(rows, torch.from_numpy(inside).to(rows.device), ids)
                yield ids, np.where(inside >= 0, inside + seen, -1), batch, number == len(groups) - 1
            seen += len(labels)
        if seen != len(self.class_ids):
            raise UserError("blocks ended sooner than before: give what can be gone through again, as a list.")

    def _batch(self, rows: Tensor, index: Tensor, ids: Tensor) -> Batch:
        """Rows of several classes around the means of all rows of the class, not of this block's."""
        x = rows.index_select(0, index.clamp(min=0).flatten()).view(*index.shape, rows.shape[1])
        means = self.origins[ids]
        x = (x - means[:, None].to(x.dtype)).float().masked_fill_((index < 0)[..., None], 0)
        square = torch.linalg.vector_norm(x, dim=2).square_()
        sizes = (index >= 0).sum(1)
        return Batch(x, means.float(), sizes, self.spherical, square, bool((index < 0).any()), gram=None)


class _Fit:
    """Centroids that move, and the labels of the last pass."""

    def __init__(self, data: _Rows, start: ClasswiseClustering, ranks: Ranks, tol: float) -> None:
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
        farthest = _Farthest(self.centroids) if self.short() else None
        for ids, places, batch, block_ends in self.data.batches(self.active.any(1).cpu().numpy(), total):
            labels, distances = assign_rows(batch, self.centroids[ids].float(), self.start.ks, 1)
            labels = torch.where(self.active[ids][..., None], labels, -1)
            columns = columns_of(labels, self.start.ks, 1)
            sums[ids] += sums_of(batch, columns, total)
            counts[ids] += sizes_of(columns, total)
            inertia[ids] += distances.sum(2, dtype=torch.float64)
            self._note(ids.cpu().numpy(), places, labels)
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
        """Some cluster of an active problem had no rows in the pass before."""
        seen = torch.isfinite(self.inertia) & self.active
        return bool((seen[:, self.of_column] & (self.counts == 0)).any())

    def _note(self, ids: np.ndarray, places: np.ndarray, labels: Tensor) -> None:
        """Write down the labels of active problems; others keep theirs."""
        c, position = np.nonzero(places >= 0)
        found = labels.cpu().numpy().transpose(0, 2, 1)[c, position]
        at = places[c, position]
        self.labels[at] = np.where(self.active.cpu().numpy()[ids[c]], found, self.labels[at])

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
        # from around the centroids to around the means: |x - m|² = sum of |x - c|² + 2 S·(c - m) + n(|m|² - |c|²)
        change = 2 * (sums * (self.centroids - means)).sum(2)
        change += counts * (means.square().sum(2) - self.centroids.square().sum(2))
        inertia = inertia.index_add(1, self.of_column, change).clamp_(min=0)
        live = self.active[:, self.of_column]
        self.centroids = torch.where((live & (counts > 0))[..., None], means, self.centroids)
        self.counts = torch.where(live, counts, self.counts)
        empty = torch.zeros_like(self.active).index_put_((*self._empty(),), torch.tensor(True, device=live.device))
        better = torch.isinf(self.inertia) | (self.inertia - inertia > self.tol * self.inertia)
        self.inertia = torch.where(self.active, inertia, self.inertia)
        self.active = self.active & (better | empty)

    def _empty(self) -> tuple[Tensor, Tensor]:
        """Classes and problems of the empty clusters."""
        classes, columns = (self.active[:, self.of_column] & (self.counts == 0)).nonzero(as_tuple=True)
        return classes, self.of_column[columns]

    def _relocate(self, farthest: _Farthest) -> None:
        """Move the centroids of empty clusters to the farthest rows of the problem's clusters of largest inertia."""
        for _, problems, columns in self.blocks:
            empty = (self.counts[:, columns] == 0) & self.active[:, problems]
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


class _Farthest:
    """Of every cluster: its farthest row from the centroid (C, T, D) float32, that distance, and the inertia."""

    def __init__(self, centroids: Tensor) -> None:
        self.rows = torch.zeros_like(centroids, dtype=torch.float32)
        self.distances = centroids.new_full(centroids.shape[:2], -1, dtype=torch.float32)
        self.inertia = centroids.new_zeros(centroids.shape[:2])

    def see(self, ids: Tensor, batch: Batch, columns: Tensor, distances: Tensor) -> None:
        """Rows of a batch, with the (C_b, M, n) columns of their clusters and distances to these."""
        total = self.distances.shape[1]
        flat, own = columns.flatten(1), distances.flatten(1)
        spare = own.new_full((len(own), total + 1), -1)
        most = spare.scatter_reduce(1, flat, own, "amax")
        # the first place at which the largest distance stands
        place = torch.arange(columns.shape[2], device=own.device).repeat(columns.shape[1]).expand_as(flat)
        place = torch.where(own == most.gather(1, flat), place, columns.shape[2])
        first = torch.full_like(spare, columns.shape[2], dtype=torch.int64).scatter_reduce(1, flat, place, "amin")
        most, first = most[:, :total], first[:, :total].clamp(max=columns.shape[2] - 1)
        farther = most > self.distances[ids]
        rows = rows_at(batch.x, first)
        self.rows[ids] = torch.where(farther[..., None], rows, self.rows[ids])
        self.distances[ids] = torch.maximum(most, self.distances[ids])
        self.inertia[ids] += spare.double().fill_(0).scatter_add(1, flat, own.double())[:, :total]

    def share(self, ranks: Ranks) -> None:
        """Of all processes the farthest."""
        if ranks.alone:
            return
        mine = self.distances.clone()
        ranks.largest(self.distances)
        # of several that hold it the last
        holder = torch.where(mine == self.distances, ranks.rank, -1)
        ranks.largest(holder)
        self.rows.masked_fill_((holder != ranks.rank)[..., None], 0)
        ranks.add(self.rows, self.inertia)
