"""How often each criterion finds the number of clusters of synthetic classes.

    python -m tests.benchmarks.k_recovery [--classes 20] [--dims 64 1280] [--rows 200] [--seed 0]
        [--criteria principal-gap silhouette ...]

Two generators, true K from 1 to 5, candidates 1 to 5, n rows a class (200 unless told) in d dimensions:

- simplex: K unit Gaussians N(c_j, I) of n / K rows, their centres at one pairwise distance s * delta(K) from each other
  in random directions, off the origin by a common vector of length 10. delta(K) is the distance at which an oracle that
  knows the centres puts 99 % of the rows to their own (found by bisection on a million draws); s is the separation.
- uneven: sizes proportional to 1, 1/2, ..., 1/K; each cluster stretched by a log-normal factor (sigma 0.5) along every
  dimension and scaled back to the mean variance 1, centres as above; then 4 % of the rows are replaced by one outlier
  cloud, uniform in a ball of three times the radius of the class.

Prints, for each generator, n, d and separation, the share of classes whose K is right; for K of 2 to 5 the weakest
variance that separates the centres of the simplex, (s delta(K))^2 / 2K, relative to sqrt(d / n), below which no
component shows it (Baik, Ben Arous and Péché, 2005); the adjusted Rand index of k-means under the true K; and for the
first criterion the confusion table (rows: true K, columns: chosen K).
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from fgdemo.clustering import classwise_kmeans
from fgdemo.clustering.criteria import CRITERIA

KS = range(1, 6)

Drawn = tuple[np.ndarray, np.ndarray]
"""(n, d) rows, and the cluster of each; -1 for outliers."""


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


def simplex(random: np.random.Generator, k: int, rows: int, dim: int, separation: float) -> Drawn:
    groups = np.arange(rows) % k
    return centres(random, k, dim, separation)[groups] + random.standard_normal((rows, dim)), groups


def uneven(random: np.random.Generator, k: int, rows: int, dim: int, separation: float) -> Drawn:
    share = 1 / np.arange(1, k + 1)
    groups = np.searchsorted(np.cumsum(share) / share.sum(), (np.arange(rows) + 0.5) / rows)
    stretch = random.lognormal(0, 0.5, (k, dim))
    stretch /= np.sqrt(np.square(stretch).mean(1, keepdims=True))
    x = centres(random, k, dim, separation)[groups] + stretch[groups] * random.standard_normal((rows, dim))
    mean = x.mean(0)
    radius = 3 * np.sqrt(np.square(x - mean).sum(1).mean())
    far = random.permutation(rows)[: rows // 25]
    ball = random.standard_normal((len(far), dim))
    ball *= radius * random.random((len(far), 1)) ** (1 / dim) / np.linalg.norm(ball, axis=1, keepdims=True)
    x[far] = mean + ball
    return x, np.where(np.isin(np.arange(rows), far), -1, groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=20, help="for each true K")
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 1280])
    parser.add_argument("--rows", type=int, nargs="+", default=[200], help="of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generators", nargs="+", choices=["simplex", "uneven"], default=["simplex", "uneven"])
    parser.add_argument("--separations", type=float, nargs="+", default=[0.5, 0.75, 1.0])
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    print("delta(K), K = 2 to 5: " + ", ".join(f"{oracle_distance(k):.2f}" for k in KS if k > 1) + "\n")
    print("| generator | n | d | separation | " + " | ".join(options.criteria) + " | variance / limit | ARI |")
    print("|---|---|---|---|" + "---|" * (len(options.criteria) + 2))
    tables = []
    for name, rows, dim, separation in product(options.generators, options.rows, options.dims, options.separations):
        random = np.random.default_rng([dim, round(100 * separation), *([options.seed, rows] if options.seed else [])])
        truth = np.repeat(KS, options.classes)
        draw = {"simplex": simplex, "uneven": uneven}[name]
        drawn = [draw(random, int(k), rows, dim, separation) for k in truth]
        x = np.concatenate([x for x, _ in drawn]).astype(np.float32)
        labels = np.repeat(np.arange(len(truth)), rows)
        found = {criterion: classwise_kmeans(x, labels, KS, select=criterion) for criterion in options.criteria}
        first = next(iter(found.values()))
        cells = [f"{100 * (f.chosen == truth).mean():.0f} %" for f in found.values()]
        limits = [(separation * oracle_distance(k)) ** 2 / (2 * k) / np.sqrt(dim / rows) for k in KS[1:]]
        agreement = [
            adjusted_rand_score(groups[groups >= 0], first.labels[labels == c, k - 1][groups >= 0])
            for c, (k, (_, groups)) in enumerate(zip(truth, drawn, strict=True))
        ]
        cells.append("" if name == "uneven" else ", ".join(f"{limit:.1f}" for limit in limits))
        cells.append(", ".join(f"{np.mean(np.array(agreement)[truth == k]):.2f}" for k in KS[1:]))
        print(f"| {name} | {rows} | {dim} | {separation} | " + " | ".join(cells) + " |", flush=True)
        confusion = np.zeros((5, 5), int)
        np.add.at(confusion, (truth - 1, first.chosen - 1), 1)
        tables.append((f"{name}, n {rows}, d {dim}, separation {separation}", confusion))
    print(f"\nConfusion of {options.criteria[0]}:")
    for title, confusion in tables:
        print(f"\n{title}\n" + "\n".join("  ".join(f"{count:3d}" for count in row) for row in confusion))


if __name__ == "__main__":
    main()
