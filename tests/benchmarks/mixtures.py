"""Class-wise Gaussian mixtures beside a loop over scikit-learn: every class under K in 2..5.

    python -m tests.benchmarks.mixtures [--shapes 102x20x384 ...] [--covariance diagonal] [--threads 1] [--rounds 3]

Two comparisons for each shape (classes x rows x dimensions), with the same tolerance and cap of EM iterations, and the
same floor (a constraint in ours, an addition in scikit-learn's):

- equal starts: EM from the clusters of one class-wise k-means. Ours is `em.fit`, which also assigns; the loop fits,
  scores and predicts.
- whole: each with its own k-means, one seeding a problem.

Times are the best of interleaved rounds; the last column is our log-likelihood less theirs, a value of the rows.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from fgdemo.clustering import classwise_kmeans, classwise_mixtures
from fgdemo.clustering.batch import class_groups, gather_batch, rows_of_classes
from fgdemo.clustering.em import fit, standardise

KS = (2, 3, 4, 5)
ITERATIONS = 20
TOL = 1e-3
FLOOR = 1e-3
SHAPES = ["102x20x384", "100x200x64"]
THEIRS = {"diagonal": "diag", "spherical": "spherical"}

Found = tuple[np.ndarray, np.ndarray]
"""Log-likelihoods and EM iterations, (C, M) each."""


def make_classes(classes: int, rows: int, dim: int, seed: int) -> np.ndarray:
    """(C, n, D) unit Gaussians about 3 apart, four in each class: their overlap keeps EM busy."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((classes, 4, dim), np.float32) * np.float32(3 / np.sqrt(2 * dim))
    return centers[:, np.arange(rows) % 4] + random.standard_normal((classes, rows, dim), np.float32)


def ours_from(x: np.ndarray, labels: np.ndarray, covariance: str) -> Found:
    """EM from (C, n, M) clusters."""
    classes, n, dim = x.shape
    rows, sizes = torch.from_numpy(x.reshape(-1, dim)), np.full(classes, n)
    likelihood, iterations = np.empty((2, classes, len(KS)))
    for group in class_groups(sizes, sum(KS), 2 * dim, rows.device):
        batch, scale = standardise(gather_batch(rows, rows_of_classes(np.repeat(np.arange(classes), n), sizes, group)))
        start = torch.from_numpy(labels[group]).transpose(1, 2).contiguous()
        good = torch.ones(len(group), len(KS), dtype=torch.bool)
        found = fit(
            batch, start, KS, good, diagonal=covariance == "diagonal", floor=FLOOR, max_iter=ITERATIONS, tol=TOL
        )
        likelihood[group] = found.likelihood - n * dim * scale.log()[:, None]
        iterations[group] = found.iterations
    return likelihood, iterations


def ours(x: np.ndarray, covariance: str) -> Found:
    y = np.repeat(np.arange(len(x)), x.shape[1])
    options = {"restarts": 1, "max_iter": ITERATIONS, "tol": TOL, "floor": FLOOR}
    found = classwise_mixtures(x.reshape(-1, x.shape[2]), y, KS, covariance=covariance, **options)
    return found.log_likelihood, found.iterations


def parameters_of(rows: np.ndarray, labels: np.ndarray, k: int, covariance: str, floor: float) -> dict[str, np.ndarray]:
    """scikit-learn's start from clusters."""
    members = [rows[labels == j] for j in range(k)]
    variances = np.stack([part.var(0) for part in members])
    if covariance == "spherical":
        variances = variances.mean(1)
    return {
        "weights_init": (np.bincount(labels) / len(rows)).astype(rows.dtype),
        "means_init": np.stack([part.mean(0) for part in members]),
        "precisions_init": 1 / np.maximum(variances, floor),
        # not k-means, whose result the given parameters would overwrite
        "init_params": "random_from_data",
    }


def loop(x: np.ndarray, floors: np.ndarray, starts: list[list[dict[str, np.ndarray]]] | None, covariance: str) -> Found:
    likelihood, iterations = np.empty((2, len(x), len(KS)))
    for c, rows in enumerate(x):
        for m, k in enumerate(KS):
            model = GaussianMixture(
                k,
                covariance_type=THEIRS[covariance],
                tol=TOL,
                reg_covar=floors[c],
                max_iter=ITERATIONS,
                random_state=0,
                **(starts[c][m] if starts else {}),
            ).fit(rows)
            likelihood[c, m], iterations[c, m] = model.score(rows) * len(rows), model.n_iter_
            model.predict(rows)
    return likelihood, iterations


def best_times(runs: list[Callable[[], Found]], rounds: int) -> list[float]:
    seconds = [float("inf")] * len(runs)
    for _ in range(rounds):
        for position, run in enumerate(runs):
            start = time.perf_counter()
            run()
            seconds[position] = min(seconds[position], time.perf_counter() - start)
    return seconds


def line(shape: str, covariance: str, comparison: str, runs: list[Callable[[], Found]], rounds: int, size: int) -> str:
    """One row of the table for ours and theirs on classes of `size` values."""
    found = [run() for run in runs]
    seconds = best_times(runs, rounds)
    cells = [f"{s:.3f} ({iterations.mean():.1f})" for s, (_, iterations) in zip(seconds, found, strict=True)]
    gap = (found[0][0] - found[1][0]).mean() / size
    return " | ".join([f"| {shape}", covariance, comparison, *cells, f"{seconds[1] / seconds[0]:.1f}", f"{gap:+.5f} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--covariance", nargs="+", default=list(THEIRS), choices=list(THEIRS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(f"{options.threads} thread(s) of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}, best of {options.rounds}\n")
    print("| shape | covariance | comparison | ours, s (iterations) | scikit-learn, s (iterations) | ratio | gain |")
    print("|---|---|---|---|---|---|---|")
    with threadpool_limits(options.threads):
        for shape in options.shapes:
            x = make_classes(*map(int, shape.split("x")), options.seed)
            floors = FLOOR * x.var(1).mean(1).astype(float)
            y = np.repeat(np.arange(len(x)), x.shape[1])
            labels = classwise_kmeans(x.reshape(-1, x.shape[2]), y, KS, select="bic").labels.reshape(*x.shape[:2], -1)
            for covariance in options.covariance:
                starts = [
                    [parameters_of(x[c], labels[c, :, m], k, covariance, floors[c]) for m, k in enumerate(KS)]
                    for c in range(len(x))
                ]
                for comparison, runs in (
                    (
                        "equal starts",
                        [partial(ours_from, x, labels, covariance), partial(loop, x, floors, starts, covariance)],
                    ),
                    ("whole", [partial(ours, x, covariance), partial(loop, x, floors, None, covariance)]),
                ):
                    print(line(shape, covariance, comparison, runs, options.rounds, x[0].size), flush=True)


if __name__ == "__main__":
    main()
