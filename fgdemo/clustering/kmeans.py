"""K-means of one set of rows behind one signature and three engines.

Semantics of every engine: greedy k-means++ seeds (the same rows for the same seed), Lloyd's algorithm from each, the
start with the lowest inertia kept; then no cluster is empty, each centroid is the mean of its rows, and the inertia is
the sum of squared distances to it.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch, make_batch
from fgdemo.clustering.checks import as_choice, as_count, as_rows, as_seed
from fgdemo.clustering.lloyd import relocate
from fgdemo.clustering.partition import MAX_ITER, RESTARTS, TOL, all_starts, measure, partition, start_draws
from fgdemo.clustering.result import Clustering
from fgdemo.errors import UserError

ENGINES = ("auto", "faiss", "torch", "sklearn")

LARGE_K = 32
"""Beyond it one k-means problem on the CPU, of few dimensions, is faster in faiss."""


def import_faiss() -> Any:
    """The faiss module.

    Raises:
        UserError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise UserError(
            "engine='faiss' needs faiss: `pip install faiss-gpu` on Linux x86-64, `pip install faiss-cpu` elsewhere."
        ) from None
    return faiss


def pick_engine(engine: str, device: torch.device, *, k: int, spherical: bool, problems: int = 1) -> str:
    """The engine that "auto" stands for; any other name is checked and returned.

    Measured on one thread of a busy 2-core machine, processor seconds (least of several runs) for torch / faiss /
    scikit-learn through this package, from the same kind of seeds:

    - one problem of (rows, dimensions, k), three restarts, blobs: (100, 128, 4) 0.004 / 0.004 / 0.007; (5000, 384, 10)
      0.10 / 0.19 / 0.14; (20000, 384, 5) 0.25 / 0.49 / 0.48; one restart, 20 iterations, no structure: (5000, 64, 24)
      0.035 / 0.037 / 0.023; (5000, 64, 64) 0.077 / 0.066 / 0.048; (5000, 384, 32) 0.09 / 0.16 / 0.08; (30000, 64, 24)
      0.18 / 0.20 / 0.10; (30000, 64, 64) 0.63 / 0.35 / 0.20; (30000, 64, 256) 2.6 / 1.1 / 0.7. The torch engine adds
      up rows by a product with a one-hot matrix, which costs as much as the distances and so loses at large k, the
      sooner the fewer dimensions there are.
    - (classes x rows x dimensions), k in 2..5, K by BIC: 102 x 20 x 384 0.05 / 2.0 / 3.1; 100 x 100 x 256 0.14 / 2.2 /
      3.5; 12 x 200 x 128 0.05 / 0.33 / 0.48; 100 x 500 x 384 1.5 / 6.0 / -. Most of the loops' time goes into
      preparing each problem; tests/benchmarks/clustering.py compares with bare loops.

    Hence torch for many problems at once, for data on a GPU and up to LARGE_K clusters, and faiss, where installed,
    beyond.

    Raises:
        UserError: unknown engine, faiss asked for and missing, or spherical k-means asked of scikit-learn.
    """
    as_choice(engine, "engine", ENGINES)
    if engine == "auto":
        heavy = problems == 1 and k > LARGE_K and device.type == "cpu"
        return "faiss" if heavy and find_spec("faiss") else "torch"
    if engine == "faiss":
        import_faiss()
    if engine == "sklearn" and spherical:
        raise UserError("scikit-learn has no spherical k-means: choose engine 'torch' or 'faiss'.")
    return engine


def kmeans(
    x: Any,
    k: int,
    *,
    engine: str = "auto",
    seed: int = 0,
    restarts: int = RESTARTS,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
    init: Any = None,
    spherical: bool = False,
) -> Clustering:
    """Partition rows into k clusters.

    Args:
        x: (N, D) numpy array or tensor on any device; computed in float32 after centring.
        k: 1 to N.
        engine: "faiss", "torch", "sklearn" or "auto" (see `pick_engine`).
        seed: decides the seeding; equal seeds give equal results on a device.
        restarts: starts tried; of three or more the last comes from the leading components (principal.py), the others
            from seedings. Ignored with `init`.
        max_iter: Lloyd iterations of each start at most.
        tol: a start ends when an iteration lowers its inertia by no more than this share (scikit-learn applies its
            own test, on the movement of the centroids, with the same number). 0 runs to the fixed point.
        init: (k, D) starting centroids. Cluster j of the result descends from row j, so ids survive small changes
            of the features.
        spherical: normalise rows and centroids to unit norm (cosine k-means). A zero row stays zero.

    Raises:
        UserError: k out of range, bad features, unknown or missing engine.
    """
    rows = as_rows(x)
    n, dim = rows.shape
    k = as_count(k, "k (the number of clusters)", 1, n)
    seed = as_seed(seed)
    restarts = as_count(restarts, "restarts", 1)
    max_iter = as_count(max_iter, "max_iter", 1)
    start = None if init is None else as_rows(init).to(rows.device)
    if start is not None and start.shape != (k, dim):
        raise UserError(f"init must be {k} centroids of {dim} dimensions, not of shape {tuple(start.shape)}.")
    engine = pick_engine(engine, rows.device, k=k, spherical=spherical)

    batch = make_batch(rows[None], torch.tensor([n], device=rows.device), spherical=spherical)
    drawn, principal = start_draws(seed, 1, k, restarts)
    uniform = torch.from_numpy(drawn).to(rows.device)
    if engine == "torch":
        backend = rows.device.type
        labels, iterations = partition(
            batch,
            (k,),
            torch.ones(1, 1, dtype=torch.bool, device=rows.device),
            uniform,
            principal=principal,
            init=None if start is None else start[None],
            max_iter=max_iter,
            tol=tol,
        )
    else:
        if start is None:
            every = torch.ones(1, 1, dtype=torch.bool, device=rows.device)
            starts = all_starts(batch, (k,), every, uniform, principal)
            starts = starts.view(-1, k, dim)
        else:
            unit = torch.nn.functional.normalize(start, dim=1) if spherical else start
            starts = (unit - batch.mean).float()[None]
        run = _faiss if engine == "faiss" else _sklearn
        found = [run(batch, s, max_iter=max_iter, tol=tol, seed=seed) for s in starts]
        labels, _, iterations, backend = min(found, key=lambda f: f[1])

    measures = measure(batch, labels, (k,))
    return Clustering(
        labels=labels[0, 0].cpu().numpy().astype(np.int64),
        centroids=measures.centroids[0].float().cpu().numpy(),
        inertia=float(measures.inertia),
        sizes=measures.sizes[0].cpu().numpy(),
        k=k,
        seed=seed,
        engine=engine,
        backend=backend,
        iterations=iterations,
    )


def _faiss(batch: Batch, start: Tensor, *, max_iter: int, tol: float, seed: int) -> tuple[Tensor, float, int, str]:
    faiss = import_faiss()
    x = batch.x[0].cpu().numpy()
    n, dim = x.shape
    # without a GPU faiss runs on the CPU whatever is asked, so ask for what there is
    gpus = faiss.get_num_gpus() if batch.x.is_cuda else 0
    algorithm = faiss.Kmeans(
        dim,
        len(start),
        niter=max_iter,
        seed=seed % 2**31,
        spherical=batch.spherical,
        gpu=gpus,
        early_stop_threshold=tol,
        # faiss sub-samples above 256 rows a centroid, and warns below 39, unless told otherwise
        max_points_per_centroid=n,
        min_points_per_centroid=1,
    )
    algorithm.train(x, init_centroids=np.ascontiguousarray(start.cpu().numpy()))
    _, nearest_ids = algorithm.assign(x)
    labels = torch.from_numpy(nearest_ids.astype(np.int64)).to(batch.x.device)
    centroids = torch.from_numpy(algorithm.centroids).to(batch.x.device)
    labels, inertia = _own_distances(batch, labels, centroids)
    return labels, inertia, len(algorithm.obj), "cuda" if gpus else "cpu"


def _sklearn(batch: Batch, start: Tensor, *, max_iter: int, tol: float, seed: int) -> tuple[Tensor, float, int, str]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    algorithm = KMeans(len(start), init=start.cpu().numpy(), n_init=1, max_iter=max_iter, tol=tol, random_state=seed)
    with warnings.catch_warnings():
        # fewer distinct rows than clusters: the empty clusters are filled below
        warnings.simplefilter("ignore", ConvergenceWarning)
        algorithm.fit(batch.x[0].cpu().numpy())
    labels = torch.from_numpy(algorithm.labels_.astype(np.int64)).to(batch.x.device)
    centroids = torch.from_numpy(algorithm.cluster_centers_).to(batch.x)
    labels, inertia = _own_distances(batch, labels, centroids)
    return labels, inertia, int(algorithm.n_iter_), "cpu"


def _own_distances(batch: Batch, labels: Tensor, centroids: Tensor) -> tuple[Tensor, float]:
    """(1, 1, N) labels without empty clusters, and the inertia to the given centroids."""
    distances = (batch.x[0] - centroids[labels.long()]).square().sum(1)
    labels, distances = relocate(labels[None], distances[None], len(centroids))
    return labels[None], float(distances.sum(dtype=torch.float64))
