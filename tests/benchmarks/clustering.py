"""Class-wise k-means side by side: every class under K in 2..5, all contestants in one run.

    python -m tests.benchmarks.clustering [--shapes 102x20x384 ...] [--spectrum decaying] [--threads 2] [--rounds 3]
        [--loop-classes 0] [--memory]

Two comparisons for each shape (classes x rows x dimensions):

- equal work: identical starts, `ITERATIONS` Lloyd iterations, one start;
- time to quality: each contestant with its own seeding and the fewest of `RESTARTS` with which its inertia, relative
  to scikit-learn's best of ten and averaged over classes and K, stays within 1.005.

Times are the best of interleaved rounds. The loops call faiss and scikit-learn directly; on large shapes
`--loop-classes` runs them on so many of the classes and scales their seconds, which is exact for a loop up to noise.

`--spectrum flat` has unit Gaussians, on which small classes converge in two or three iterations; `decaying` gives the
i-th direction a standard deviation proportional to 1/i, as features of networks have it, and then they take more.

`--memory` measures no time but the most memory (Linux) that one run with one start adds to what holds the data, each
contestant in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from fgdemo.clustering import classwise_kmeans

KS = (2, 3, 4, 5)
ITERATIONS = 10
RESTARTS = (1, 2, 3, 4, 5, 7, 10, 15, 20)
MAX_ITER = 100
TOL = 1e-6
GOOD = 1.005
SHAPES = ["102x20x384", "200x30x768", "100x500x384", "1000x60x256", "1081x227x1280"]

Classes = list[np.ndarray]
Starts = dict[tuple[int, int], np.ndarray]


def make_classes(shape: str, spectrum: str, seed: int) -> np.ndarray:
    """(C, n, D) float32: four Gaussians in each class, about 6 apart where the spectrum is flat."""
    classes, rows, dim = map(int, shape.split("x"))
    random = np.random.default_rng(seed)
    centers = random.standard_normal((classes, 4, dim), np.float32) * np.float32(6 / np.sqrt(2 * dim))
    x = random.standard_normal((classes, rows, dim), np.float32)
    for c in range(classes):
        x[c] += centers[c, np.arange(rows) % 4]
    if spectrum == "decaying":
        x /= np.arange(1, dim + 1, dtype=np.float32)
    return x


def random_starts(x: np.ndarray, seed: int) -> Starts:
    random = np.random.default_rng([seed, 1])
    return {(c, k): x[c][random.permutation(x.shape[1])[:k]] for c in range(len(x)) for k in KS}


def ours(x: np.ndarray, *, starts: Starts | None = None, restarts: int = 1) -> np.ndarray:
    init = None
    if starts is not None:
        init = np.stack([np.concatenate([starts[c, k] for k in KS]) for c in range(len(x))])
    found = classwise_kmeans(
        x.reshape(-1, x.shape[2]),
        np.repeat(np.arange(len(x)), x.shape[1]),
        KS,
        init=init,
        restarts=restarts,
        max_iter=MAX_ITER if starts is None else ITERATIONS,
        tol=TOL if starts is None else 0,
        select="bic",
        min_size=1,
    )
    return found.inertia


def _by_faiss(rows: np.ndarray, k: int, start: np.ndarray | None, restarts: int) -> float:
    algorithm = faiss.Kmeans(
        rows.shape[1],
        k,
        niter=MAX_ITER if start is None else ITERATIONS,
        nredo=restarts,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        early_stop_threshold=TOL if start is None else 0,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    algorithm.train(rows, init_centroids=start)
    return float(algorithm.assign(rows)[0].sum())


def _by_sklearn(rows: np.ndarray, k: int, start: np.ndarray | None, restarts: int) -> float:
    if start is None:
        return KMeans(k, n_init=restarts, max_iter=MAX_ITER, tol=TOL, random_state=0).fit(rows).inertia_
    return KMeans(k, init=start, n_init=1, max_iter=ITERATIONS, tol=0).fit(rows).inertia_


Solve = Callable[[np.ndarray, int, np.ndarray | None, int], float]


def loop(x: np.ndarray, *, solve: Solve, starts: Starts | None = None, restarts: int = 1) -> np.ndarray:
    return np.array([[solve(x[c], k, starts and starts[c, k], restarts) for k in KS] for c in range(len(x))])


def pool(x: np.ndarray, *, threads: int, starts: Starts | None = None, restarts: int = 1) -> np.ndarray:
    def one(c: int) -> list[float]:
        faiss.omp_set_num_threads(1)
        return [_by_faiss(x[c], k, starts and starts[c, k], restarts) for k in KS]

    try:
        with ThreadPoolExecutor(threads) as workers:
            return np.array(list(workers.map(one, range(len(x)))))
    finally:
        faiss.omp_set_num_threads(threads)


def print_memory(contestants: dict[str, Callable[..., np.ndarray]], options: argparse.Namespace) -> None:
    """A table of MiB."""
    print("| shape | data | " + " | ".join(contestants) + " |\n|---|---|" + "---|" * len(contestants))
    spawn = multiprocessing.get_context("spawn")
    for shape in options.shapes:
        cells = []
        for run in contestants.values():
            # a process that has freed nothing yet: freed memory would hide what is used again
            with spawn.Pool(1) as process:
                cells.append(process.apply(_added_memory, (run, shape, options)))
        size = np.prod([int(n) for n in shape.split("x")]) * 4 / 2**20
        print(f"| {shape} | {size:.0f} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |", flush=True)


def _added_memory(run: Callable[..., np.ndarray], shape: str, options: argparse.Namespace) -> float:
    torch.set_num_threads(options.threads)
    x = make_classes(shape, options.spectrum, options.seed)
    # libraries load their kernels in a first call
    run(x[:1, :20], restarts=1)
    # "5" makes the present size the peak (proc(5))
    Path("/proc/self/clear_refs").write_text("5")
    before = process_kib("VmRSS")
    run(x[: options.loop_classes or None] if run is not ours else x, restarts=1)
    return (process_kib("VmHWM") - before) / 1024


def process_kib(name: str) -> int:
    """A size in /proc/self/status, such as VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def best_times(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--spectrum", choices=["flat", "decaying"], default="flat")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loop-classes", type=int, default=0, help="0: all")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    contestants: dict[str, Callable[..., np.ndarray]] = {
        "ours": ours,
        "faiss loop": partial(loop, solve=_by_faiss),
        "faiss pool": partial(pool, threads=options.threads),
        "scikit-learn": partial(loop, solve=_by_sklearn),
    }
    if options.memory:
        print_memory(contestants, options)
        return
    print(f"{options.threads} thread(s) of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}, best of {options.rounds}\n")
    print("| shape | comparison | " + " | ".join(f"{name}, s (inertia, restarts)" for name in contestants) + " |")
    print("|---|---|" + "---|" * len(contestants))
    gains: dict[str, list[float]] = {name: [] for name in contestants}
    with threadpool_limits(options.threads):
        for shape in options.shapes:
            for comparison, cells, seconds in compare(shape, contestants, options):
                print(f"| {shape} | {comparison} | " + " | ".join(cells) + " |", flush=True)
                if comparison == "to quality":
                    for name in contestants:
                        gains[name].append(seconds[name] / seconds["ours"])
    means = ", ".join(f"{name} {np.exp(np.log(gain).mean()):.2f}" for name, gain in gains.items())
    print(f"\nTime to quality relative to ours, geometric mean over shapes: {means}")


def compare(
    shape: str, contestants: dict[str, Callable[..., np.ndarray]], options: argparse.Namespace
) -> list[tuple[str, list[str], dict[str, float]]]:
    x = make_classes(shape, options.spectrum, options.seed)
    part = x[: options.loop_classes or None]
    starts = random_starts(x, options.seed)
    data = {name: x if name == "ours" else part for name in contestants}
    lines = []
    reference = loop(part, solve=_by_sklearn, restarts=10)
    settings = {name: {"starts": starts} for name in contestants}
    found = {name: run(data[name], **settings[name])[: len(part)] for name, run in contestants.items()}
    lines.append(_line("equal work", contestants, settings, data, found, found["scikit-learn"], options))
    settings, found = {}, {}
    for name, run in contestants.items():
        for restarts in RESTARTS:
            settings[name] = {"restarts": restarts}
            found[name] = run(part, restarts=restarts)
            if (found[name] / reference).mean() <= GOOD:
                break
    lines.append(_line("to quality", contestants, settings, data, found, reference, options))
    return lines


def _line(
    comparison: str,
    contestants: dict[str, Callable[..., np.ndarray]],
    settings: dict[str, dict[str, object]],
    data: dict[str, np.ndarray],
    found: dict[str, np.ndarray],
    reference: np.ndarray,
    options: argparse.Namespace,
) -> tuple[str, list[str], dict[str, float]]:
    runs = {name: partial(run, data[name], **settings[name]) for name, run in contestants.items()}
    seconds = best_times(runs, options.rounds)
    cells = []
    for name in contestants:
        seconds[name] *= len(data["ours"]) / len(data[name])
        facts = [f"{(found[name] / reference).mean():.4f}"]
        if "restarts" in settings[name]:
            facts.append(str(settings[name]["restarts"]))
        cells.append(f"{seconds[name]:.3f} ({', '.join(facts)})")
    return comparison, cells, seconds


if __name__ == "__main__":
    main()
