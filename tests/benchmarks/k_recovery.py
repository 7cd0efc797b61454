"""How often each criterion finds the number of clusters of synthetic classes.

    python -m tests.benchmarks.k_recovery [--classes 20] [--dims 64 1280] [--criteria silhouette bic ...]

Two generators, true K from 1 to 5, candidates 1 to 5, n = 200 rows a class in d dimensions:

- simplex: K unit Gaussians N(c_j, I) of n / K rows, their centres at one pairwise distance s * delta(K) from each other
  in random directions, off the origin by a common vector of length 10. delta(K) is the distance at which an oracle that
  knows the centres puts 99 % of the rows to their own (found by bisection on a million draws); s is the separation.
- uneven: sizes proportional to 1, 1/2, ..., 1/K; each cluster stretched by a log-normal factor (sigma 0.5) along every
  dimension and scaled back to the mean variance 1, centres as above; then 4 % of the rows are replaced by one outlier
  cloud, uniform in a ball of three times the radius of the class.

Prints, for each generator, dimension and separation, the share of classes whose K is right, and for the first criterion
the confusion table (rows: true K, columns: chosen K).
"""

from __future__ import annotations

import argparse
from functools import lru_cache

import numpy as np
import torch

from fgdemo.clustering import classwise_kmeans
from fgdemo.clustering.criteria import CRITERIA

ROWS = 200
KS = range(1, 6)


@lru_cache
def oracle_distance(k: int) -> float:
    """Pairwise distance of k equidistant centres at which nearest centres are right for 99 % of unit Gaussians."""
    if k == 1:
        return 0.0
    # c_j = delta / sqrt(2) e_j; row 0 is right where noise_j - noise_0 < delta / sqrt(2) for all j
    noise = np.random.default_rng(k).standard_normal((1_000_000, k))
    margin = (noise[:, 1:] - noise[:, :1]).max(1)
    return float(np.sqrt(2) * np.quantile(margin, 0.99))


def centres(random: np.random.Generator, k: int, dim: int, separation: float) -> np.ndarray:
    frame = np.linalg.qr(random.standard_normal((dim, k + 1)))[0].T
    return frame[:k] * separation * oracle_distance(k) / np.sqrt(2) + 10 * frame[k]


def simplex(random: np.random.Generator, k: int, dim: int, separation: float) -> np.ndarray:
    return centres(random, k, dim, separation)[np.arange(ROWS) % k] + random.standard_normal((ROWS, dim))


def uneven(random: np.random.Generator, k: int, dim: int, separation: float) -> np.ndarray:
    share = 1 / np.arange(1, k + 1)
    groups = np.searchsorted(np.cumsum(share) / share.sum(), (np.arange(ROWS) + 0.5) / ROWS)
    stretch = random.lognormal(0, 0.5, (k, dim))
    stretch /= np.sqrt(np.square(stretch).mean(1, keepdims=True))
    x = centres(random, k, dim, separation)[groups] + stretch[groups] * random.standard_normal((ROWS, dim))
    mean = x.mean(0)
    radius = 3 * np.sqrt(np.square(x - mean).sum(1).mean())
    far = random.permutation(ROWS)[: ROWS // 25]
    ball = random.standard_normal((len(far), dim))
    ball *= radius * random.random((len(far), 1)) ** (1 / dim) / np.linalg.norm(ball, axis=1, keepdims=True)
    x[far] = mean + ball
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=20, help="for each true K")
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 1280])
    parser.add_argument("--separations", type=float, nargs="+", default=[0.5, 0.75, 1.0])
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    print("delta(K), K = 2 to 5: " + ", ".join(f"{oracle_distance(k):.2f}" for k in KS if k > 1) + "\n")
    print("| generator | d | separation | " + " | ".join(options.criteria) + " |")
    print("|---|---|---|" + "---|" * len(options.criteria))
    tables = []
    for generator in (simplex, uneven):
        for dim in options.dims:
            for separation in options.separations:
                random = np.random.default_rng([dim, round(100 * separation)])
                truth = np.repeat(KS, options.classes)
                x = np.concatenate([generator(random, int(k), dim, separation) for k in truth]).astype(np.float32)
                labels = np.repeat(np.arange(len(truth)), ROWS)
                chosen = {name: classwise_kmeans(x, labels, KS, select=name).chosen for name in options.criteria}
                cells = [f"{100 * (found == truth).mean():.0f} %" for found in chosen.values()]
                print(f"| {generator.__name__} | {dim} | {separation} | " + " | ".join(cells) + " |", flush=True)
                confusion = np.zeros((5, 5), int)
                np.add.at(confusion, (truth - 1, chosen[options.criteria[0]] - 1), 1)
                tables.append((f"{generator.__name__}, d {dim}, separation {separation}", confusion))
    print(f"\nConfusion of {options.criteria[0]}:")
    for title, confusion in tables:
        print(f"\n{title}\n" + "\n".join("  ".join(f"{count:3d}" for count in row) for row in confusion))


if __name__ == "__main__":
    main()
