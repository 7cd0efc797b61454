"""Expectation-maximisation of Gaussian mixtures for all classes and all K of a batch in the same operations.

Columns are those of `lloyd` with one start: T = sum(ks) a class, ordered by K, then component. Q is D where every
coordinate has its variance and 1 where one variance serves all coordinates of a component.

A. P. Dempster, N. M. Laird and D. B. Rubin, "Maximum Likelihood from Incomplete Data via the EM Algorithm", Journal of
the Royal Statistical Society B 39 (1977). Floors are constraints of the maximisation, not additions to its result, so
the likelihood rises under them too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch
from fgdemo.clustering.lloyd import COMPACT, column_blocks, columns_of, one_hot

STARVED = 1e-3
"""Rows. A component that holds less stays where it is, with the weight of so many: a mean of next to nothing says
nothing, and one without weight would never come back."""

CANCELLING = 1e-4
"""Share of a component's mean square below which its variance, the mean square less the squared mean, has lost four of
the seven digits of single precision."""


@dataclass(frozen=True)
class Components:
    """weights (C, T), means (C, T, D) and variances (C, T, Q), in the coordinates of a standardised batch."""

    weights: Tensor
    means: Tensor
    variances: Tensor

    def take(self, classes: Tensor) -> Components:
        """Those of some of the classes."""
        return Components(self.weights[classes], self.means[classes], self.variances[classes])

    def put(self, classes: Tensor, others: Components) -> None:
        """Overwrite some of the classes."""
        self.weights[classes] = others.weights.to(self.weights)
        self.means[classes] = others.means.to(self.means)
        self.variances[classes] = others.variances.to(self.variances)


@dataclass(frozen=True)
class Mixtures:
    """The components of every class under every K; of (C, M) problems the log-likelihood float64 and the number of EM
    iterations int64; labels (C, M, n) int64 by largest posterior, -1 in padded rows."""

    components: Components
    likelihood: Tensor
    iterations: Tensor
    labels: Tensor


@dataclass(frozen=True)
class _Sums:
    """Of the rows, weighted by responsibilities: counts (C, T), first (C, T, D) and second (C, T, Q) moments."""

    counts: Tensor
    first: Tensor
    second: Tensor


def standardise(batch: Batch) -> tuple[Batch, Tensor]:
    """The batch in units of each class's scale, and that scale (C,) float64.

    It is the root of the class's variance averaged over coordinates; 1 where all rows are equal.
    """
    variance = batch.square.sum(1, dtype=torch.float64) / (batch.sizes * batch.x.shape[2])
    scale = torch.where(variance > 0, variance.sqrt(), 1).float()[:, None]
    # the scale divides twice because its square may leave the range of single precision
    scaled = replace(batch, x=batch.x / scale[..., None], square=batch.square / scale / scale, gram=None)
    return scaled, scale[:, 0].double()


def fit(
    batch: Batch,
    labels: Tensor,
    ks: tuple[int, ...],
    admissible: Tensor,
    *,
    diagonal: bool,
    floor: float,
    max_iter: int,
    tol: float,
) -> Mixtures:
    """Mixtures that start from given clusters.

    A problem, one (class, K), stops when an iteration raises its log-likelihood by no more than `tol` a row. Each
    problem stops for itself and is frozen from then on, so its result does not depend on what it is batched with.
    Classes whose components turn out so tight that single precision cancels are computed again in double precision.

    Args:
        batch: C standardised classes.
        labels: (C, M, n) int64 clusters, -1 in padded rows.
        admissible: (C, M) bool; problems of inadmissible pairs return meaningless numbers.
        diagonal: a variance for each coordinate.
        floor: the smallest variance.
    """
    options = {"floor": floor, "max_iter": max_iter, "tol": tol}
    squares = _squares(batch, diagonal)
    found = _run(batch, squares, labels, ks, admissible, **options)
    components = found.components
    second = components.variances + mean_square(components.means, components.variances.shape[2])
    lost = (components.variances < CANCELLING * second).any(2) & _by_column(admissible, ks)
    tight = lost.any(1).nonzero()[:, 0]
    if len(tight):
        few = batch.take(tight)
        exact = few.x.double()
        few = replace(few, x=exact, square=exact.square().sum(2))
        again = _run(few, _squares(few, diagonal), labels[tight], ks, admissible[tight], **options)
        components.put(tight, again.components)
        for whole, part in (
            (found.likelihood, again.likelihood),
            (found.iterations, again.iterations),
            (found.labels, again.labels),
        ):
            whole[tight] = part
    return found


def log_joint(components: Components, x: Tensor, squares: Tensor) -> Tensor:
    """(C, T, n) logarithm of weight times density of every component at every row.

    Args:
        x: (C, n, D).
        squares: (C, n, Q) squares of x, or their mean over the coordinates.
    """
    dim, share = x.shape[2], x.shape[2] // squares.shape[2]
    precisions = 1 / components.variances
    linear = components.means * precisions
    determinant = share * components.variances.log().sum(2) + dim * math.log(2 * math.pi)
    constant = components.weights.log() - 0.5 * (torch.linalg.vecdot(components.means, linear) + determinant)
    result = torch.baddbmm(constant[..., None], precisions, squares.transpose(1, 2), alpha=-0.5 * share)
    return result.baddbmm_(linear, x.transpose(1, 2))


def mean_square(values: Tensor, q: int) -> Tensor:
    """(..., Q) squares of (..., D), averaged over the coordinates where Q is 1."""
    return values.square() if q == values.shape[-1] else values.square().mean(-1, keepdim=True)


def _squares(batch: Batch, diagonal: bool) -> Tensor:
    """(C, n, Q) squares of the rows."""
    return batch.x.square() if diagonal else (batch.square / batch.x.shape[2])[..., None]


def _owners(ks: tuple[int, ...], device: torch.device) -> Tensor:
    """(T,) position of each column's K."""
    return torch.arange(len(ks), device=device).repeat_interleave(torch.tensor(ks, device=device))


def _by_column(problems: Tensor, ks: tuple[int, ...]) -> Tensor:
    """(C, T) from (C, M)."""
    return problems[:, _owners(ks, problems.device)]


def _run(
    batch: Batch,
    squares: Tensor,
    labels: Tensor,
    ks: tuple[int, ...],
    admissible: Tensor,
    *,
    floor: float,
    max_iter: int,
    tol: float,
) -> Mixtures:
    """`fit` in the precision of the batch."""
    total = sum(ks)
    columns = columns_of(labels, ks, 1)
    blocks = ((rows, one_hot(columns[:, :, rows], total).to(batch.x)) for rows in batch.row_blocks(total))
    nowhere = Components(
        batch.x.new_zeros(len(batch.x), total),
        batch.x.new_zeros(len(batch.x), total, batch.x.shape[2]),
        batch.x.new_ones(len(batch.x), total, squares.shape[2]),
    )
    everywhere = torch.ones_like(nowhere.weights, dtype=torch.bool)
    components = _maximise(nowhere, everywhere, _add(batch, squares, total, blocks), batch.sizes, ks, floor)
    final = Mixtures(
        nowhere,
        torch.zeros(admissible.shape, dtype=torch.float64, device=batch.x.device),
        torch.zeros(admissible.shape, dtype=torch.int64, device=batch.x.device),
        labels.new_full(labels.shape, -1),
    )
    whole, whole_squares = batch, squares
    classes = torch.arange(len(batch.x), device=batch.x.device)
    # one component is already the best there is
    able = admissible & (torch.tensor(ks, device=batch.x.device) > 1)
    active = torch.ones_like(able)
    likelihood = torch.full_like(final.likelihood, -torch.inf)
    for iteration in range(max_iter + 1):
        found, sums = _expect(batch, squares, components, ks)
        rising = found - likelihood > tol * batch.sizes[:, None]
        likelihood = torch.where(active, found, likelihood)
        active = active & able & rising
        busy = active.any(1)
        moving = int(busy.sum())
        if iteration == max_iter or not moving:
            break
        final.iterations[classes] += active
        better = _maximise(components, _by_column(active, ks), sums, batch.sizes, ks, floor)
        if moving <= COMPACT * len(busy):
            final.components.put(classes, components)
            final.likelihood[classes] = likelihood
            batch, squares, better = batch.take(busy), squares[busy], better.take(busy)
            classes, able, active, likelihood = classes[busy], able[busy], active[busy], likelihood[busy]
        components = better
    final.components.put(classes, components)
    final.likelihood[classes] = likelihood
    return replace(final, labels=_assign(whole, whole_squares, final.components, ks))


def _add(batch: Batch, squares: Tensor, total: int, blocks: Iterable[tuple[slice, Tensor]]) -> _Sums:
    """Sums from (C, T, n') responsibilities of ranges of rows, 0 in padded ones."""
    counts = batch.x.new_zeros(len(batch.x), total)
    first = batch.x.new_zeros(*counts.shape, batch.x.shape[2])
    second = batch.x.new_zeros(*counts.shape, squares.shape[2])
    for rows, shares in blocks:
        counts += shares.sum(2)
        first.baddbmm_(shares, batch.x[:, rows])
        second.baddbmm_(shares, squares[:, rows])
    return _Sums(counts, first, second)


def _expect(batch: Batch, squares: Tensor, components: Components, ks: tuple[int, ...]) -> tuple[Tensor, _Sums]:
    """Log-likelihood (C, M) float64, and the sums for the next maximisation."""
    likelihood = torch.zeros(len(batch.x), len(ks), dtype=torch.float64, device=batch.x.device)

    def blocks() -> Iterable[tuple[slice, Tensor]]:
        for rows in batch.row_blocks(sum(ks)):
            shares = log_joint(components, batch.x[:, rows], squares[:, rows])
            real = batch.mask[:, None, rows]
            for position, (_, _, columns) in enumerate(column_blocks(ks, 1)):
                part = shares[:, columns]
                height = part.logsumexp(1, keepdim=True)
                part.sub_(height).exp_()
                likelihood[:, position] += torch.where(real, height, 0).sum((1, 2), dtype=torch.float64)
            yield rows, shares.mul_(real) if batch.padded else shares

    return likelihood, _add(batch, squares, sum(ks), blocks())


def _maximise(
    components: Components, active: Tensor, sums: _Sums, sizes: Tensor, ks: tuple[int, ...], floor: float
) -> Components:
    """The components of largest expected log-likelihood with variances of at least `floor` and weights of at least
    STARVED rows, in the (C, T) active columns; the given ones elsewhere. Overwrites the sums."""
    fed = sums.counts >= STARVED
    moved = (active & fed)[..., None]
    scale = 1 / sums.counts.clamp(min=STARVED)[..., None]
    means = torch.where(moved, sums.first.mul_(scale), components.means)
    variances = sums.second.mul_(scale).sub_(mean_square(means, sums.second.shape[2])).clamp_(min=floor)
    variances = torch.where(moved, variances, components.variances)
    # what the starved are given is taken from the fed in proportion
    owners = _owners(ks, fed.device)
    held = sums.counts.new_zeros(len(fed), len(ks)).index_add_(1, owners, torch.where(fed, sums.counts, 0))
    given = STARVED * sums.counts.new_zeros(len(fed), len(ks)).index_add_(1, owners, (~fed).to(sums.counts))
    left = ((sizes[:, None] - given) / held.clamp(min=STARVED))[:, owners]
    weights = torch.where(fed, sums.counts * left, STARVED) / sizes[:, None]
    return Components(torch.where(active, weights, components.weights), means, variances)


def _assign(batch: Batch, squares: Tensor, components: Components, ks: tuple[int, ...]) -> Tensor:
    """(C, M, n) int64 component of largest posterior, ties to the lowest; -1 in padded rows."""
    parts = []
    for rows in batch.row_blocks(sum(ks)):
        logs = log_joint(components, batch.x[:, rows], squares[:, rows])
        found = [logs[:, columns].argmax(1) for _, _, columns in column_blocks(ks, 1)]
        parts.append(torch.stack(found, 1))
    return torch.where(batch.mask[:, None], torch.cat(parts, 2), -1)
