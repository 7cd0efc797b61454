"""What a clustering returns, the same whatever computed it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Clustering:
    """One partition of N rows into K clusters, none of them empty.

    Attributes:
        labels: (N,) int64 in [0, K).
        centroids: (K, D) float32, the mean of each cluster's rows in the space of the given rows (for a spherical
            clustering the unit-norm direction of the mean of the unit-norm rows).
        inertia: sum over rows of the squared Euclidean distance to their own centroid (unit-norm rows and
            centroids where spherical).
        sizes: (K,) int64.
        k: number of clusters found.
        seed: the seed it was computed with.
        engine: "faiss", "torch" or "sklearn" for k-means; "torch", "sklearn" or "scipy" for other methods.
        backend: "cpu" or "cuda", where the computation really ran.
        iterations: Lloyd or EM iterations of the kept start; 0 for methods without iterations.
        sampled: number of rows of the seeded sample that the method ran on, None if it saw every row.
        noise: rows that the method called noise before each went to its nearest cluster.
    """

    labels: np.ndarray
    centroids: np.ndarray
    inertia: float
    sizes: np.ndarray
    k: int
    seed: int
    engine: str
    backend: str
    iterations: int
    sampled: int | None = None
    noise: int = 0


@dataclass(frozen=True)
class ClasswiseClustering:
    """Every class under every K. Columns run over K in the order of `ks`, then over the clusters of that K.

    Attributes:
        ks: the M candidate numbers of clusters, ascending.
        labels: (N, M) int64, cluster id inside the row's class; -1 where that K is inadmissible for the class.
        centroids: (C, sum(ks), D) float32, NaN where inadmissible.
        columns: (sum(ks),) int64, the K that each centroid column belongs to.
        sizes: (C, sum(ks)) int64, 0 where inadmissible.
        inertia: (C, M) float64, NaN where inadmissible.
        means: (C, D) float32, the single centroid of each class (K = 1), NaN for an empty class.
        chosen: (C,) int64, K of each class: one of `ks`; 1 where no candidate is admissible; 0 for an empty class.
        scores: criterion -> (C, M) float64, larger is better, NaN where inadmissible or undefined.
        class_ids: (N,) int64, the given labels.
        seed, engine, backend: as in `Clustering`.
        iterations: the most Lloyd iterations that any of the problems took.
    """

    ks: tuple[int, ...]
    labels: np.ndarray
    centroids: np.ndarray
    columns: np.ndarray
    sizes: np.ndarray
    inertia: np.ndarray
    means: np.ndarray
    chosen: np.ndarray
    scores: dict[str, np.ndarray]
    class_ids: np.ndarray = field(repr=False)
    seed: int
    engine: str
    backend: str
    iterations: int

    def block(self, k: int) -> slice:
        """Columns of `centroids` and `sizes` that belong to the candidate `k`."""
        start = sum(self.ks[: self.ks.index(k)])
        return slice(start, start + k)

    def with_chosen(self, chosen: np.ndarray) -> ClasswiseClustering:
        """The same clustering under other (C,) numbers of clusters, such as those of `SteadyK`.

        A class to which the asked K is inadmissible keeps its own.
        """
        chosen = np.asarray(chosen, np.int64)
        good = np.zeros(len(chosen), bool)
        for position, k in enumerate(self.ks):
            good |= (chosen == k) & ~np.isnan(self.inertia[:, position])
        return replace(self, chosen=np.where(good, chosen, self.chosen))

    def subclass_labels(self) -> np.ndarray:
        """(N,) int64: each row's cluster inside its class, for the K chosen for the class."""
        # 0 is right for the classes that fall back to a single cluster outside the candidates
        result = np.zeros(len(self.class_ids), np.int64)
        chosen = self.chosen[self.class_ids]
        for position, k in enumerate(self.ks):
            result = np.where(chosen == k, self.labels[:, position], result)
        return result

    def centroids_of(self, class_id: int) -> np.ndarray:
        """(K, D) float32 centroids of a class for its chosen K; (0, D) for an empty class."""
        k = int(self.chosen[class_id])
        if k in self.ks:
            return self.centroids[class_id, self.block(k)]
        return self.means[class_id : class_id + 1][: k > 0]
