from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from fgdemo.clustering import classwise_kmeans, kmeans
from fgdemo.errors import UserError

KS = (1, 2, 3, 5)


@pytest.fixture
def classes(blobs):
    """Rows of six classes of unequal size and structure, in mixed order."""
    parts = [
        blobs(n, 24, k, 9, seed) for seed, (n, k) in enumerate([(40, 3), (12, 1), (90, 2), (41, 4), (300, 5), (5, 1)])
    ]
    x = np.concatenate([p[0] + 3 * i for i, p in enumerate(parts)])
    y = np.repeat(np.arange(6), [len(p[0]) for p in parts])
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], y[order]


def check(found, x, y, min_size=2):
    for c in range(len(found.chosen)):
        rows = x[y == c]
        for m, k in enumerate(found.ks):
            labels = found.labels[y == c, m]
            block = found.block(k)
            if len(rows) < k * min_size:
                assert (labels == -1).all()
                assert np.isnan(found.inertia[c, m])
                assert np.isnan(found.centroids[c, block]).all()
                assert not found.sizes[c, block].any()
                continue
            assert sorted(set(labels.tolist())) == list(range(k))
            means = np.stack([rows[labels == j].mean(0) for j in range(k)])
            np.testing.assert_allclose(found.centroids[c, block], means, atol=1e-4)
            np.testing.assert_array_equal(found.sizes[c, block], np.bincount(labels, minlength=k))
            np.testing.assert_allclose(found.inertia[c, m], ((rows - means[labels]) ** 2).sum(), rtol=1e-5)


@pytest.mark.parametrize("engine", ["torch", "faiss", "sklearn"])
def test_every_class_under_every_k(classes, engine):
    if engine == "faiss":
        pytest.importorskip("faiss")
    x, y = classes
    found = classwise_kmeans(x, y, KS, engine=engine, select="bic")
    assert (found.ks, found.engine, found.backend) == (KS, engine, "cpu")
    assert found.columns.tolist() == [1, 2, 2, 3, 3, 3, 5, 5, 5, 5, 5]
    check(found, x, y)
    best = classwise_kmeans(x, y, KS, engine=engine, select="bic", restarts=12)
    ours = classwise_kmeans(x, y, KS, engine="torch", select="bic", restarts=12)
    large = np.bincount(y) >= 40
    np.testing.assert_allclose(ours.inertia[large] / best.inertia[large], 1, atol=0.01)


def test_more_restarts_never_raise_the_inertia(classes):
    x, y = classes
    few, many = (classwise_kmeans(x, y, KS, engine="torch", select="bic", restarts=r, tol=0) for r in (2, 9))
    known = np.isfinite(few.inertia)
    assert (many.inertia[known] <= few.inertia[known] * (1 + 1e-6)).all()
    assert (many.inertia[known] < few.inertia[known] * 0.999).any()


def test_batched_equals_a_loop_of_kmeans_from_the_same_starts(classes):
    x, y = classes
    start = np.full((6, sum(KS), x.shape[1]), np.nan, np.float32)
    for c in range(6):
        rows = x[y == c]
        start[c] = rows[np.arange(sum(KS)) % len(rows)]
    found = classwise_kmeans(x, y, KS, init=start, engine="torch", tol=0, select="bic", min_size=1)
    for c in range(6):
        for m, k in enumerate(KS):
            alone = kmeans(x[y == c], k, init=start[c, found.block(k)], engine="torch", tol=0)
            np.testing.assert_array_equal(found.labels[y == c, m], alone.labels)
            np.testing.assert_allclose(found.inertia[c, m], alone.inertia, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(found.centroids[c, found.block(k)], alone.centroids, atol=1e-5)


@pytest.mark.parametrize("spherical", [False, True])
def test_a_class_does_not_depend_on_the_others(classes, spherical):
    x, y = classes
    options = {"engine": "torch", "select": "silhouette", "spherical": spherical}
    together = classwise_kmeans(x, y, KS, **options)
    first = y < 3
    few = classwise_kmeans(x[first], y[first], KS, **options)
    np.testing.assert_array_equal(together.labels[first], few.labels)
    np.testing.assert_array_equal(together.chosen[:3], few.chosen)


def test_many_small_batches_give_the_same(classes, monkeypatch):
    from fgdemo.clustering import batch

    x, y = classes
    whole = classwise_kmeans(x, y, KS, engine="torch")
    monkeypatch.setattr(batch, "BLOCK_VALUES", 4096)
    parts = classwise_kmeans(x, y, KS, engine="torch")
    np.testing.assert_array_equal(whole.labels, parts.labels)
    np.testing.assert_array_equal(whole.chosen, parts.chosen)


def test_deterministic_for_a_seed(classes):
    x, y = classes
    a, b, c = (classwise_kmeans(x, y, KS, seed=s, restarts=1) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.labels, b.labels)
    for name, scores in a.scores.items():
        np.testing.assert_array_equal(scores, b.scores[name])
    assert (a.labels != c.labels).any()


@pytest.mark.parametrize("engine", ["torch", "sklearn"])
def test_warm_start_keeps_ids(classes, engine):
    x, y = classes
    before = classwise_kmeans(x, y, KS, select="bic", engine=engine)
    drifted = x + np.random.default_rng(1).standard_normal(x.shape).astype(np.float32) * 1e-3
    warm = classwise_kmeans(drifted, y, KS, select="bic", engine=engine, init=before, seed=9)
    cold = classwise_kmeans(drifted, y, KS, select="bic", engine=engine, seed=9, restarts=1)
    assert (warm.labels == before.labels).mean() > 0.99
    assert (cold.labels == before.labels).mean() < 0.9


def test_partial_warm_start_seeds_the_rest(classes):
    x, y = classes
    before = classwise_kmeans(x, y, KS, select="bic")
    start = before.centroids.copy()
    start[0] = np.nan
    after = classwise_kmeans(x, y, KS, select="bic", init=start)
    check(after, x, y)
    np.testing.assert_array_equal(after.labels[y != 0], before.labels[y != 0])


def test_admissible_needs_distinct_rows_and_the_minimum_size():
    x = np.concatenate([np.repeat(np.eye(3), 10, 0), np.random.default_rng(0).standard_normal((9, 3))])
    y = np.repeat([0, 1], [30, 9])
    found = classwise_kmeans(x, y, (1, 2, 3, 4), select=4, min_size=3)
    # class 0 has three distinct rows; class 1 has rows for three clusters of three
    np.testing.assert_array_equal(np.isfinite(found.inertia), [[1, 1, 1, 0], [1, 1, 1, 0]])
    assert found.chosen.tolist() == [3, 3]
    assert (found.labels[:, 3] == -1).all()
    assert found.inertia[0, 2] == pytest.approx(0, abs=1e-9)


def test_fallbacks_of_small_and_empty_classes():
    x = np.random.default_rng(0).standard_normal((21, 4))
    y = np.repeat([0, 2], [20, 1])
    found = classwise_kmeans(x, y, (2, 3), select=2)
    assert found.chosen.tolist() == [2, 0, 1]
    assert found.subclass_labels()[-1] == 0
    assert found.labels[-1].tolist() == [-1, -1]
    np.testing.assert_allclose(found.centroids_of(2), x[20:], atol=1e-6)
    assert found.centroids_of(1).shape == (0, 4)
    np.testing.assert_array_equal(found.centroids_of(0), found.centroids[0, :2])
    np.testing.assert_array_equal(found.subclass_labels()[:20], found.labels[:20, 0])


def test_default_candidates_follow_the_largest_class(blobs):
    x, _ = blobs(60, 5, 2, 8)
    assert classwise_kmeans(x, np.zeros(60, int), select="bic").ks == tuple(range(1, 13))
    assert classwise_kmeans(x, np.zeros(60, int), select="bic", max_k=4).ks == (1, 2, 3, 4)
    assert classwise_kmeans(x[:9], np.zeros(9, int), select="bic").ks == (1, 2, 3, 4)
    assert classwise_kmeans(x[:1], np.zeros(1, int)).chosen.tolist() == [1]


def test_spherical_centroids_are_unit(classes):
    x, y = classes
    found = classwise_kmeans(x, y, (1, 3), spherical=True, select=3)
    norms = np.linalg.norm(found.centroids, axis=2)
    np.testing.assert_allclose(norms[np.isfinite(norms)], 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.means, axis=1), 1, rtol=1e-5)


def test_bad_input_is_refused(classes):
    x, y = classes
    with pytest.raises(UserError, match="one label a row"):
        classwise_kmeans(x, y[:-1], KS)
    with pytest.raises(UserError, match="at least 0"):
        classwise_kmeans(x, y - 1, KS)
    with pytest.raises(UserError, match="integers"):
        classwise_kmeans(x, y + 0.5, KS)
    with pytest.raises(UserError, match="from 1 to 300"):
        classwise_kmeans(x, y, (2, 301))
    with pytest.raises(UserError, match="ks is empty"):
        classwise_kmeans(x, y, ())
    with pytest.raises(UserError, match="principal-gap, silhouette, exact-silhouette, bic, stability"):
        classwise_kmeans(x, y, KS, select="elbow")
    with pytest.raises(UserError, match="from 1 to 5"):
        classwise_kmeans(x, y, KS, select=6)
    with pytest.raises(UserError, match="auto, faiss, torch, sklearn"):
        classwise_kmeans(x, y, KS, engine="gpu")
    with pytest.raises(UserError, match="same ks"):
        classwise_kmeans(x, y, (1, 2), init=classwise_kmeans(x, y, (1, 3), select=1))
    with pytest.raises(UserError, match=r"\(6, 3, 24\)"):
        classwise_kmeans(x, y, (1, 2), init=np.zeros((6, 2, 24)))
    x = torch.from_numpy(x.copy())
    x[17, 3] = torch.nan
    with pytest.raises(UserError, match="Row 17"):
        classwise_kmeans(x, y, KS)


def test_threads_make_no_difference_and_are_given_back(classes, monkeypatch):
    from fgdemo.clustering import batch

    monkeypatch.setattr(batch, "CACHED_VALUES", 1)
    x, y = classes
    alone = classwise_kmeans(x, y, KS)
    torch.set_num_threads(3)
    seen, threads = [], []

    def progress(done, of):
        seen.append((done, of))
        threads.append(threading.active_count())

    before = threading.active_count()
    found = classwise_kmeans(x, y, KS, progress=progress)
    assert seen == [(i, 6) for i in range(1, 7)]
    assert max(threads) > before
    for name in ("labels", "centroids", "chosen", "inertia"):
        np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))
    assert torch.get_num_threads() == 3

    def stop(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classwise_kmeans(x, y, KS, progress=stop)
    assert torch.get_num_threads() == 3
    assert threading.active_count() == before
