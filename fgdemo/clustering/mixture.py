"""Gaussian mixtures of every class under every candidate K, in one call, and the choice of K for each class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import class_groups, gather_batch, rows_of_classes
from fgdemo.clustering.candidates import MAX_K, MIN_SIZE, admissible_ks, as_candidates, chosen_ks, largest_up_to
from fgdemo.clustering.checks import as_choice, as_count, as_labels, as_number, as_rows, as_seed
from fgdemo.clustering.criteria.bic import choose_by_bic
from fgdemo.clustering.em import Components, Mixtures, fit, log_joint, mean_square, standardise
from fgdemo.clustering.partition import RESTARTS, partition, start_draws
from fgdemo.errors import UserError

COVARIANCES = ("diagonal", "spherical")

MAX_ITER = 100
TOL = 1e-3
"""EM iterations; rise of the log-likelihood a row that counts as none (as in scikit-learn)."""

FLOOR = 1e-3
"""Smallest variance of a component, as a share of the class's variance averaged over coordinates."""


@dataclass(frozen=True)
class ClasswiseMixtures:
    """Every class under every K. Columns run over K in the order of `ks`, then over the components of that K.

    Attributes:
        ks: the M candidate numbers of components, ascending.
        covariance: "diagonal" or "spherical".
        weights: (C, sum(ks)) float64, NaN where inadmissible.
        means: (C, sum(ks), D) float64 in the coordinates of the given rows, NaN where inadmissible.
        variances: (C, sum(ks), D), or (C, sum(ks)) where spherical, float64, NaN where inadmissible.
        labels: (N, M) int64, component of largest posterior inside the row's class; -1 where that K is inadmissible
            for the class. Not every component need be the largest somewhere.
        log_likelihood: (C, M) float64, the sum over the class's rows, NaN where inadmissible.
        bic: (C, M) float64, 2 log L - p log n with p free parameters; larger is better; NaN where inadmissible.
        iterations: (C, M) int64 of EM; 0 for K = 1, which needs none.
        chosen: (C,) int64, K of each class: one of `ks`; 1 where no candidate is admissible; 0 for an empty class.
        class_ids: (N,) int64, the given labels.
        seed: the seed it was computed with.
        backend: "cpu" or "cuda", where the computation ran.
    """

    ks: tuple[int, ...]
    covariance: str
    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    labels: np.ndarray
    log_likelihood: np.ndarray
    bic: np.ndarray
    iterations: np.ndarray
    chosen: np.ndarray
    class_ids: np.ndarray = field(repr=False)
    seed: int
    backend: str

    def block(self, k: int) -> slice:
        """Columns that belong to the candidate `k`."""
        start = sum(self.ks[: self.ks.index(k)])
        return slice(start, start + k)

    def posteriors(self, x: Any, labels: Any, k: int) -> np.ndarray:
        """Probability of each component of the row's class, given the row.

        Args:
            x: (N', D) rows, those of the fit or others; computed in float64 on their device.
            labels: (N',) class of each.
            k: a candidate.

        Returns:
            (N', k) float64, NaN where k is inadmissible for the class or the class was empty.

        Raises:
            UserError: bad rows or labels, other dimensions or classes than those of the fit, or k not among `ks`.
        """
        rows = as_rows(x)
        classes = as_labels(labels, len(rows))
        dim = self.means.shape[2]
        if rows.shape[1] != dim:
            raise UserError(f"The mixtures are of {dim} dimensions, the rows of {rows.shape[1]}.")
        if classes.max() >= len(self.chosen):
            raise UserError(f"There are mixtures of {len(self.chosen)} classes, but a row has label {classes.max()}.")
        if k not in self.ks:
            raise UserError(f"k must be one of the candidates {', '.join(map(str, self.ks))}, not {k!r}.")
        sizes = np.bincount(classes)
        result = np.empty((len(rows), k))
        for group in class_groups(sizes, k, 2 * dim, rows.device):
            where = rows_of_classes(classes, sizes, group)
            found = self._posteriors(rows, where, group, self.block(k))
            result[where[where >= 0]] = found.cpu().numpy()[where >= 0]
        return result

    def _posteriors(self, rows: Tensor, where: np.ndarray, group: np.ndarray, columns: slice) -> Tensor:
        """(C_g, n, k) of the rows listed by `rows_of_classes`; meaningless in padded ones."""
        tables = self.weights, self.means, self.variances
        weights, means, variances = (torch.from_numpy(table[group, columns]).to(rows.device) for table in tables)
        index = torch.from_numpy(where).clamp(min=0).to(rows.device)
        # inner products cancel far from the origin
        center = (weights[..., None] * means).sum(1, keepdim=True)
        x = rows[index].double() - center
        variances = variances if variances.ndim == 3 else variances[..., None]
        components = Components(weights, means - center, variances)
        return log_joint(components, x, mean_square(x, variances.shape[2])).softmax(1).transpose(1, 2)


def classwise_mixtures(
    x: Any,
    labels: Any,
    ks: Iterable[int] | None = None,
    *,
    covariance: str = "diagonal",
    seed: int = 0,
    restarts: int = RESTARTS,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
    floor: float = FLOOR,
    max_k: int = MAX_K,
    min_size: int = MIN_SIZE,
    select: str | int = "bic",
) -> ClasswiseMixtures:
    """Fit a Gaussian mixture to each class by itself under each K, and choose a K per class.

    Every fit starts from the k-means clusters of `classwise_kmeans` with the same seed and restarts, whose rule of
    admissible K applies. Classes of similar size and all K share the same batched operations, on the device of x.

    Args:
        x: (N, D) numpy array or tensor on any device; computed in float32 after centring and scaling each class, in
            float64 where that cancels.
        labels: (N,) class ids from 0. Classes without rows are allowed: their K is 0.
        ks: candidates; by default 1 to max_k, as far as the largest class admits.
        covariance: "diagonal", a variance for each coordinate of each component, or "spherical", one a component.
        seed: decides the seeding of k-means.
        restarts: starts of k-means; EM goes on from the best.
        max_iter: EM iterations at most.
        tol: a fit ends when an iteration raises its log-likelihood by no more than this a row.
        floor: smallest variance, as a share of the class's variance averaged over coordinates (of 1 where all its rows
            are equal).
        max_k: largest default candidate.
        min_size: rows needed per component, on average, for a K to be admissible.
        select: "bic", or a K for all classes, which becomes the largest admissible candidate up to it where a class
            is too small.

    Raises:
        UserError: bad features, labels, candidates, or options.
    """
    rows = as_rows(x)
    classes = as_labels(labels, len(rows))
    sizes = np.bincount(classes)
    min_size = as_count(min_size, "min_size", 1)
    candidates = as_candidates(ks, int(sizes.max()), as_count(max_k, "max_k", 1), min_size)
    if isinstance(select, str):
        as_choice(select, "criterion", ("bic",))
    else:
        select = as_count(select, "select (the number of components)", 1, max(candidates))
    diagonal = as_choice(covariance, "covariance", COVARIANCES) == "diagonal"
    seed = as_seed(seed)
    restarts = as_count(restarts, "restarts", 1)
    options = {
        "max_iter": as_count(max_iter, "max_iter", 1),
        "tol": as_number(tol, "tol", 0, 1e6),
        "floor": as_number(floor, "floor", 1e-10, 1),
    }

    dim = rows.shape[1]
    table = _Table(len(sizes), len(rows), candidates, dim, diagonal)
    uniform, principal = start_draws(seed, len(sizes), max(candidates), restarts)
    # k-means works on all restarts at once, EM on the rows and their squares
    for group in class_groups(sizes, restarts * sum(candidates), 2 * dim, rows.device):
        where = rows_of_classes(classes, sizes, group)
        batch = gather_batch(rows, where)
        admissible = admissible_ks(batch, candidates, min_size, seed)
        tried = admissible.any(0).cpu().numpy()
        if not tried.any():
            continue
        part = tuple(np.array(candidates)[tried].tolist())
        admissible = admissible[:, torch.from_numpy(tried).to(admissible.device)]
        drawn = torch.from_numpy(uniform[group][:, : max(part)]).to(rows.device)
        start, _ = partition(batch, part, admissible, drawn, principal=principal)
        center = batch.mean.double()
        batch, scale = standardise(batch)
        found = fit(batch, start, part, admissible, diagonal=diagonal, **options)
        table.write(group, where, tried, admissible.cpu().numpy(), found, center, scale)
    bic = table.bic(sizes)
    known = np.isfinite(bic)
    position = choose_by_bic(bic) if isinstance(select, str) else largest_up_to(select, candidates, known)
    return ClasswiseMixtures(
        ks=candidates,
        covariance=covariance,
        weights=table.weights,
        means=table.means,
        variances=table.variances if diagonal else table.variances[..., 0],
        labels=table.labels,
        log_likelihood=table.log_likelihood,
        bic=bic,
        iterations=table.iterations,
        chosen=chosen_ks(position, candidates, sizes),
        class_ids=classes,
        seed=seed,
        backend=rows.device.type,
    )


class _Table:
    """The result's arrays, filled group by group."""

    def __init__(self, classes: int, rows: int, ks: tuple[int, ...], dim: int, diagonal: bool):
        self.ks = np.array(ks)
        self.dim = dim
        self.weights = np.full((classes, sum(ks)), np.nan)
        self.means = np.full((classes, sum(ks), dim), np.nan)
        self.variances = np.full((classes, sum(ks), dim if diagonal else 1), np.nan)
        self.labels = np.full((rows, len(ks)), -1, np.int64)
        self.log_likelihood = np.full((classes, len(ks)), np.nan)
        self.iterations = np.zeros((classes, len(ks)), np.int64)

    def write(
        self,
        group: np.ndarray,
        where: np.ndarray,
        tried: np.ndarray,
        admissible: np.ndarray,
        found: Mixtures,
        center: Tensor,
        scale: Tensor,
    ) -> None:
        """Enter the mixtures of a group's standardised classes in the coordinates of the rows.

        Args:
            group: (C_g,) class ids.
            where: (C_g, n) row indices, -1 as padding.
            tried: (M,) bool, the candidates that `found` is about.
            admissible: (C_g, those) bool.
            center: (C_g, D) and scale: (C_g,) float64, what the rows were standardised with.
        """
        columns = np.ix_(group, np.repeat(tried, self.ks).nonzero()[0])
        good = np.repeat(admissible, self.ks[tried], axis=1)
        components, wide = found.components, scale[:, None, None]
        self.weights[columns] = np.where(good, components.weights.cpu().numpy(), np.nan)
        for table, values in (
            (self.means, components.means * wide + center[:, None]),
            (self.variances, components.variances * wide.square()),
        ):
            table[columns] = np.where(good[..., None], values.cpu().numpy(), np.nan)
        cells = np.ix_(group, tried.nonzero()[0])
        real = where >= 0
        sizes = torch.from_numpy(real.sum(1)).to(scale.device)
        likelihood = found.likelihood - (sizes * self.dim * scale.log())[:, None]
        self.log_likelihood[cells] = np.where(admissible, likelihood.cpu().numpy(), np.nan)
        self.iterations[cells] = found.iterations.cpu().numpy()
        labels = np.where(admissible[..., None], found.labels.cpu().numpy(), -1)
        # (C_g, M, n) to one line a row
        self.labels[np.ix_(where[real], tried.nonzero()[0])] = labels.transpose(0, 2, 1)[real]

    def bic(self, sizes: np.ndarray) -> np.ndarray:
        """(C, M) float64: 2 log L - p log n, where every component but the last has a free weight."""
        parameters = self.ks - 1 + self.ks * (self.dim + self.variances.shape[2])
        return 2 * self.log_likelihood - parameters * np.log(np.maximum(sizes, 1))[:, None]
