from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from fgdemo.clustering import kmeans
from fgdemo.clustering.kmeans import LARGE_K, pick_engine
from fgdemo.errors import UserError

ENGINES = ("torch", "faiss", "sklearn")
PLAIN_AND_SPHERICAL = [(e, s) for e in ENGINES for s in (False, True) if (e, s) != ("sklearn", True)]


@pytest.fixture(autouse=True)
def _need_faiss():
    pytest.importorskip("faiss")


def check(found, x, spherical=False):
    """The promises that every result keeps."""
    x = np.asarray(x, np.float64)
    if spherical:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert found.labels.dtype == np.int64
    assert found.centroids.dtype == np.float32
    assert found.centroids.shape == (found.k, x.shape[1])
    np.testing.assert_array_equal(found.sizes, np.bincount(found.labels, minlength=found.k))
    assert found.sizes.min() >= 1
    means = np.stack([x[found.labels == j].mean(0) for j in range(found.k)])
    if spherical:
        means /= np.linalg.norm(means, axis=1, keepdims=True)
    scale = np.abs(x).max()
    np.testing.assert_allclose(found.centroids, means, atol=2e-6 * scale)
    inertia = ((x - means[found.labels]) ** 2).sum()
    np.testing.assert_allclose(found.inertia, inertia, rtol=1e-5, atol=1e-9 * scale**2)


@pytest.mark.parametrize("engine", ENGINES)
def test_hand_computed_pair_of_pairs(engine):
    x = np.array([[0.0, 0], [0, 2], [10, 0], [10, 2]])
    found = kmeans(x, 2, engine=engine)
    assert found.inertia == pytest.approx(4)
    np.testing.assert_allclose(sorted(found.centroids.tolist()), [[0, 1], [10, 1]], atol=1e-6)
    assert found.labels[0] == found.labels[1] != found.labels[2] == found.labels[3]
    assert (found.k, found.engine, found.backend, found.sampled, found.noise) == (2, engine, "cpu", None, 0)


def test_hand_computed_spherical():
    # two directions; lengths must not matter
    x = np.array([[1.0, 0.1], [100, -10], [0.1, 1], [-20, 200]])
    found = kmeans(x, 2, engine="torch", spherical=True)
    assert found.labels[0] == found.labels[1] != found.labels[2] == found.labels[3]
    np.testing.assert_allclose(sorted(found.centroids.tolist()), [[0, 1], [1, 0]], atol=1e-6)
    # |x - c|² = 2 - 2 cos
    assert found.inertia == pytest.approx(4 * (2 - 2 / np.sqrt(1.01)), rel=1e-5)


@pytest.mark.parametrize(("engine", "spherical"), PLAIN_AND_SPHERICAL)
def test_result_is_consistent(blobs, engine, spherical):
    x, _ = blobs(150, 12, 4, 6)
    check(kmeans(x, 6, engine=engine, spherical=spherical), x, spherical)


@pytest.mark.parametrize("engine", ENGINES)
def test_full_lloyd_equals_scikit_learn_from_the_same_start(blobs, engine):
    x, _ = blobs(300, 10, 4, 3)
    start = x[[3, 50, 120, 200, 250]]
    reference = KMeans(5, init=start, n_init=1, tol=0, max_iter=300).fit(x)
    found = kmeans(x, 5, engine=engine, init=start, tol=0, max_iter=300)
    np.testing.assert_array_equal(found.labels, reference.labels_)
    assert found.inertia == pytest.approx(reference.inertia_, rel=1e-5)
    np.testing.assert_allclose(found.centroids, reference.cluster_centers_, atol=1e-5)


@pytest.mark.parametrize("shape", [(60, 100), (200, 16)], ids=["inner products", "rows"])
def test_torch_matches_scikit_learn_on_both_of_its_paths(blobs, shape):
    x, _ = blobs(*shape, 3, 5)
    start = x[:4]
    reference = KMeans(4, init=start, n_init=1, tol=0, max_iter=300).fit(x)
    found = kmeans(x, 4, engine="torch", init=start, tol=0, max_iter=300)
    np.testing.assert_array_equal(found.labels, reference.labels_)


@pytest.mark.parametrize("engine", ["faiss", "sklearn"])
@pytest.mark.parametrize("separation", [3, 10])
def test_engines_agree_on_the_best_of_restarts(blobs, engine, separation):
    x, _ = blobs(400, 16, 5, separation)
    ours = kmeans(x, 5, engine="torch", restarts=8).inertia
    assert ours / kmeans(x, 5, engine=engine, restarts=8).inertia == pytest.approx(1, abs=0.01)
    assert ours / KMeans(5, n_init=10, random_state=0).fit(x).inertia_ <= 1.01


def test_spherical_engines_agree(blobs):
    x, groups = blobs(300, 16, 4, 12)
    a, b = (kmeans(x, 4, engine=e, spherical=True) for e in ("torch", "faiss"))
    assert a.inertia == pytest.approx(b.inertia, rel=1e-4)
    assert adjusted_rand_score(groups, a.labels) > 0.95


@pytest.mark.parametrize("engine", ENGINES)
def test_no_row_is_left_out_by_faiss_subsampling(engine):
    # far above 256 rows a centroid; the mean must be that of every row
    x = np.random.default_rng(0).standard_normal((3000, 3)).astype(np.float32)
    check(kmeans(x, 2, engine=engine), x)


@pytest.mark.parametrize("engine", ENGINES)
def test_duplicates_never_leave_a_cluster_empty(engine):
    x = np.repeat([[0.0, 0], [5, 5], [9, 0]], 7, axis=0)
    found = kmeans(x, 6, engine=engine)
    check(found, x)
    assert found.inertia == pytest.approx(0, abs=1e-9)
    check(kmeans(np.ones((5, 3)), 4, engine=engine), np.ones((5, 3)))


@pytest.mark.parametrize("engine", ENGINES)
def test_start_with_useless_centroids_leaves_none_empty(blobs, engine):
    x, _ = blobs(80, 5, 3, 10)
    start = np.concatenate([x[:2], np.full((2, 5), 1e4, np.float32)])
    check(kmeans(x, 4, engine=engine, init=start), x)


@pytest.mark.parametrize("engine", ENGINES)
def test_k_equals_one_and_n(blobs, engine):
    x, _ = blobs(30, 4, 2, 5)
    one = kmeans(x, 1, engine=engine)
    check(one, x)
    assert one.inertia == pytest.approx(((x - x.mean(0)) ** 2).sum(), rel=1e-5)
    every = kmeans(x, 30, engine=engine)
    check(every, x)
    assert every.inertia == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_warm_start_keeps_ids_under_drift(blobs, engine):
    x, _ = blobs(200, 8, 4, 12)
    before = kmeans(x, 4, engine=engine)
    order = [2, 0, 3, 1]
    drifted = x + np.random.default_rng(1).standard_normal(x.shape).astype(np.float32) * 0.05
    after = kmeans(drifted, 4, engine=engine, init=before.centroids[order], seed=7)
    np.testing.assert_array_equal(np.array(order)[after.labels], before.labels)


@pytest.mark.parametrize("engine", ENGINES)
def test_deterministic_for_a_seed(blobs, engine):
    x, _ = blobs(120, 6, 1, 0)
    a, b = (kmeans(x, 5, engine=engine, seed=3, restarts=1) for _ in range(2))
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.centroids, b.centroids)
    assert any((kmeans(x, 5, engine=engine, seed=s, restarts=1).labels != a.labels).any() for s in range(4, 8))


def test_restarts_and_iterations_have_their_effect(blobs):
    x, _ = blobs(300, 6, 1, 0)
    inertias = [kmeans(x, 8, restarts=r, tol=0).inertia for r in (1, 4, 16)]
    assert inertias[0] > inertias[2]
    assert inertias == sorted(inertias, reverse=True)
    short, long = (kmeans(x, 8, engine="torch", restarts=1, max_iter=m, tol=0) for m in (1, 100))
    assert short.iterations < long.iterations
    assert short.inertia > long.inertia
    loose = kmeans(x, 8, engine="torch", restarts=1, tol=0.5)
    assert loose.iterations < long.iterations


def test_rows_are_worked_on_in_blocks(blobs, monkeypatch):
    from fgdemo.clustering import batch

    x, _ = blobs(500, 6, 4, 5)
    start = x[:4]
    whole = kmeans(x, 4, engine="torch", init=start)
    monkeypatch.setattr(batch, "BLOCK_VALUES", 256)
    parts = kmeans(x, 4, engine="torch", init=start)
    np.testing.assert_array_equal(whole.labels, parts.labels)
    assert whole.inertia == pytest.approx(parts.inertia)


def test_seeding_from_a_sample_of_many_rows(blobs, monkeypatch):
    from fgdemo.clustering import seeding

    monkeypatch.setattr(seeding, "SEED_ROWS", 64)
    x, _ = blobs(2000, 8, 5, 12)
    reference = KMeans(5, n_init=5, random_state=0).fit(x).inertia_
    assert kmeans(x, 5, engine="torch").inertia <= 1.01 * reference


@pytest.mark.parametrize(
    "make", [torch.from_numpy, np.asarray, np.ndarray.tolist, lambda x: torch.from_numpy(x).half()]
)
def test_accepts_arrays_tensors_and_half_precision(blobs, make):
    x, groups = blobs(60, 4, 2, 12)
    assert adjusted_rand_score(groups, kmeans(make(x), 2).labels) == 1


def test_far_from_the_origin_in_double_precision(blobs):
    x, _ = blobs(100, 4, 3, 8)
    near = kmeans(x.astype(np.float64), 3, engine="torch")
    far = kmeans(x.astype(np.float64) + 1e6, 3, engine="torch")
    np.testing.assert_array_equal(near.labels, far.labels)
    assert near.inertia == pytest.approx(far.inertia, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 5), n=st.integers(6, 40), d=st.integers(1, 8))
def test_invariances_from_a_fixed_start(seed, k, n, d):
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, d))
    start = x[random.choice(n, k, replace=False)]
    found = kmeans(x, k, engine="torch", init=start, tol=0)
    check(found, x)
    # rows in another order
    order = random.permutation(n)
    shuffled = kmeans(x[order], k, engine="torch", init=start, tol=0)
    np.testing.assert_array_equal(shuffled.labels, found.labels[order])
    # another origin, unit and orientation
    rotation = np.linalg.qr(random.standard_normal((d, d)))[0]
    move = lambda rows: 3.5 * rows @ rotation + 20  # noqa: E731
    moved = kmeans(move(x), k, engine="torch", init=move(start), tol=0)
    np.testing.assert_array_equal(moved.labels, found.labels)
    assert moved.inertia == pytest.approx(3.5**2 * found.inertia, rel=1e-4, abs=1e-5)
    # at the fixed point every row is at its nearest centroid
    gaps = ((x[:, None] - found.centroids[None]) ** 2).sum(2)
    np.testing.assert_allclose(gaps[np.arange(n), found.labels], gaps.min(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [0, -1, 11, 10**9, 2.5, "x", None, float("nan"), True])
def test_bad_k_is_refused_with_the_range(blobs, k):
    x, _ = blobs(10, 3, 1, 0)
    with pytest.raises(UserError, match="from 1 to 10"):
        kmeans(x, k)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_bad_rows_are_named(blobs, value):
    x, _ = blobs(10, 3, 1, 0)
    x[[4, 7], 1] = value
    with pytest.raises(UserError, match=r"Row 4 .*2 such rows of 10"):
        kmeans(x, 2)


@pytest.mark.parametrize("x", [np.zeros(5), np.zeros((0, 3)), np.zeros((3, 0)), np.array([["a", "b"]])])
def test_bad_shapes_are_refused(x):
    with pytest.raises(UserError, match="Features must be"):
        kmeans(x, 1)


def test_bad_names_and_starts_are_refused(blobs, monkeypatch):
    x, _ = blobs(10, 3, 1, 0)
    with pytest.raises(UserError, match="auto, faiss, torch, sklearn"):
        kmeans(x, 2, engine="faise")
    with pytest.raises(UserError, match="spherical"):
        kmeans(x, 2, engine="sklearn", spherical=True)
    with pytest.raises(UserError, match="2 centroids of 3 dimensions"):
        kmeans(x, 2, init=x[:3])
    with pytest.raises(UserError, match="restarts"):
        kmeans(x, 2, restarts=0)
    for seed in (-1, 2**32, 0.5):
        with pytest.raises(UserError, match="seed"):
            kmeans(x, 2, seed=seed)


def test_without_faiss(blobs, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    x, _ = blobs(10, 3, 1, 0)
    with pytest.raises(UserError, match="pip install faiss-gpu"):
        kmeans(x, 2, engine="faiss")
    assert pick_engine("auto", torch.device("cpu"), k=LARGE_K + 1, spherical=False) == "torch"


def test_auto_follows_the_measured_rule():
    cpu = torch.device("cpu")
    assert pick_engine("auto", cpu, k=LARGE_K, spherical=False) == "torch"
    assert pick_engine("auto", cpu, k=LARGE_K + 1, spherical=False) == "faiss"
    assert pick_engine("auto", cpu, k=LARGE_K + 1, spherical=False, problems=100) == "torch"
    assert pick_engine("auto", torch.device("cuda"), k=LARGE_K + 1, spherical=False) == "torch"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(blobs):
    x, _ = blobs(500, 16, 4, 8)
    here, there = (kmeans(torch.from_numpy(x).to(device), 4, engine="torch") for device in ("cpu", "cuda"))
    assert there.backend == "cuda"
    np.testing.assert_array_equal(here.labels, there.labels)
