"""Class-wise k-means side by side: every class under K in 2..5, three restarts, one run.

    python -m tests.benchmarks.clustering [--shapes 102x20x384 ...] [--threads 1] [--rounds 3]

Prints a Markdown table of the best time over interleaved rounds and of the inertia relative to ours (mean over
classes and K; below 1 is better). The loops call faiss and scikit-learn directly, with their own k-means++.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable

import faiss
import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from fgdemo.clustering import classwise_kmeans

KS = (2, 3, 4, 5)
RESTARTS = 3
MAX_ITER = 100
TOL = 1e-6


def make_classes(classes: int, rows: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit Gaussians about 6 apart, four in each class."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((classes, 4, dim)) * 6 / np.sqrt(2 * dim)
    x = centers[:, np.arange(rows) % 4] + random.standard_normal((classes, rows, dim))
    return x.reshape(-1, dim).astype(np.float32), np.repeat(np.arange(classes), rows)


def ours(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    found = classwise_kmeans(
        x, labels, KS, engine="torch", restarts=RESTARTS, max_iter=MAX_ITER, tol=TOL, select="bic", min_size=1
    )
    return found.inertia


def faiss_loop(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    def run(rows: np.ndarray, k: int) -> float:
        algorithm = faiss.Kmeans(
            rows.shape[1],
            k,
            niter=MAX_ITER,
            nredo=RESTARTS,
            init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
            early_stop_threshold=TOL,
            min_points_per_centroid=1,
            max_points_per_centroid=len(rows),
        )
        algorithm.train(rows)
        return float(algorithm.assign(rows)[0].sum())

    return _loop(x, labels, run)


def sklearn_loop(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return _loop(x, labels, lambda rows, k: KMeans(k, n_init=RESTARTS, max_iter=MAX_ITER).fit(rows).inertia_)


def _loop(x: np.ndarray, labels: np.ndarray, run: Callable[[np.ndarray, int], float]) -> np.ndarray:
    return np.array([[run(x[labels == c], k) for k in KS] for c in range(labels.max() + 1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["102x20x384", "100x100x256", "12x200x128"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    contestants = {"torch, batched": ours, "faiss loop": faiss_loop, "scikit-learn loop": sklearn_loop}
    print(f"{options.threads} thread(s) of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}, best of {options.rounds}\n")
    print("| classes x rows x dim | " + " | ".join(f"{name}, s | inertia / ours" for name in contestants) + " |")
    print("|---|" + "---|---|" * len(contestants))
    with threadpool_limits(options.threads):
        for shape in options.shapes:
            x, labels = make_classes(*map(int, shape.split("x")), seed=options.seed)
            seconds = dict.fromkeys(contestants, float("inf"))
            inertia = {}
            for _ in range(options.rounds):
                for name, run in contestants.items():
                    start = time.perf_counter()
                    inertia[name] = run(x, labels)
                    seconds[name] = min(seconds[name], time.perf_counter() - start)
            cells = [f"{seconds[n]:.3f} | {(inertia[n] / inertia['torch, batched']).mean():.4f}" for n in contestants]
            print(f"| {shape} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
