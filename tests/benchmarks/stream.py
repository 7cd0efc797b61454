"""Class-wise k-means over blocks of a memory-mapped file, beside what needs the rows in memory or clusters in batches.

    python -m tests.benchmarks.stream [--shape 20x10000x64] [--k 4] [--rounds 3] [--threads 1]

Contestants: `stream_kmeans` as it is and with one mini-batch pass, `classwise_kmeans` on the file read into memory, and
a loop of scikit-learn's MiniBatchKMeans over the rows of each class, read as they are needed. All use one K, their own
seeding, and one start (MiniBatchKMeans and the sample of `stream_kmeans` alike). Each runs in a process of its own:
seconds are the best of `--rounds`, MiB what the first run adds at most to the memory before it (Linux), the pages of
the file not counted, and the inertia that of all rows, relative to the lowest.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from fgdemo.clustering import ArrayBlocks, classwise_kmeans, stream_kmeans
from tests.benchmarks.clustering import make_classes, process_kib

Labels = np.ndarray


def stream(x: np.ndarray, classes: Labels, k: int) -> float:
    return float(stream_kmeans(ArrayBlocks(x, classes), [k], select=k, restarts=1).inertia.sum())


def mini_batches(x: np.ndarray, classes: Labels, k: int) -> float:
    found = stream_kmeans(ArrayBlocks(x, classes), [k], select=k, restarts=1, max_passes=2, mini_batch_passes=1)
    return float(found.inertia.sum())


def in_memory(x: np.ndarray, classes: Labels, k: int) -> float:
    return float(classwise_kmeans(np.array(x), classes, [k], select=k, restarts=1).inertia.sum())


def scikit_learn(x: np.ndarray, classes: Labels, k: int) -> float:
    total = 0.0
    for c in range(classes.max() + 1):
        rows = x[classes == c]
        found = MiniBatchKMeans(k, n_init=1, random_state=0).fit(rows)
        total += float(np.square(rows - found.cluster_centers_[found.predict(rows)]).sum(dtype=np.float64))
    return total


CONTESTANTS: dict[str, Callable[[np.ndarray, Labels, int], float]] = {
    "stream": stream,
    "stream, mini-batches": mini_batches,
    "in memory": in_memory,
    "MiniBatchKMeans": scikit_learn,
}


def measure(name: str, folder: str, options: argparse.Namespace) -> tuple[float, float, float]:
    """Best seconds, MiB added by the first run, inertia."""
    torch.set_num_threads(options.threads)
    run = CONTESTANTS[name]
    x = np.load(Path(folder) / "x.npy", mmap_mode="r")
    classes = np.load(Path(folder) / "classes.npy")
    with threadpool_limits(options.threads):
        # libraries load their kernels in a first call
        run(x[:200], np.zeros(200, np.int64), options.k)
        # "5" makes the present size the peak (proc(5))
        Path("/proc/self/clear_refs").write_text("5")
        before, pages = process_kib("VmRSS"), process_kib("RssFile")
        inertia = run(x, classes, options.k)
        added = process_kib("VmHWM") - before - max(0, process_kib("RssFile") - pages)
        seconds = []
        for _ in range(options.rounds):
            begun = time.perf_counter()
            run(x, classes, options.k)
            seconds.append(time.perf_counter() - begun)
    return min(seconds), added / 1024, inertia


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="20x10000x64", help="classes x rows x dimensions")
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        x = make_classes(options.shape, "flat", 0)
        classes = np.repeat(np.arange(len(x)), x.shape[1])
        # rows of all classes mixed, as they come from a data set
        order = np.random.default_rng(0).permutation(len(classes))
        np.save(Path(folder) / "x.npy", x.reshape(len(classes), -1)[order])
        np.save(Path(folder) / "classes.npy", classes[order])
        size = x.nbytes / 2**20
        del x
        found = {}
        for name in CONTESTANTS:
            with multiprocessing.get_context("spawn").Pool(1) as process:
                found[name] = process.apply(measure, (name, folder, options))
    least = min(inertia for *_, inertia in found.values())
    print(f"{options.shape}, K = {options.k}, {options.threads} thread(s), {size:.0f} MiB of data\n")
    print("| contestant | seconds | MiB | inertia |\n|---|---|---|---|")
    for name, (seconds, added, inertia) in found.items():
        print(f"| {name} | {seconds:.2f} | {added:.0f} | {inertia / least:.4f} |")


if __name__ == "__main__":
    main()
