from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from fgdemo.clustering import METHODS, classwise_mixtures, cluster, kmeans, methods
from fgdemo.errors import UserError

WITH_K = [m for m in METHODS if m != "hdbscan"]


def check(found, x, spherical=False):
    x = np.asarray(x, np.float64)
    if spherical:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_array_equal(found.sizes, np.bincount(found.labels, minlength=found.k))
    assert found.sizes.min() >= 1
    means = np.stack([x[found.labels == j].mean(0) for j in range(found.k)])
    if spherical:
        means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(found.centroids, means, atol=1e-4)
    assert found.inertia == pytest.approx(((x - means[found.labels]) ** 2).sum(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("method", WITH_K)
@pytest.mark.parametrize("k", [1, 3, 7])
def test_given_k(blobs, method, k):
    x, groups = blobs(120, 10, 3, 14)
    found = cluster(x, method, k)
    assert found.k == k
    assert (found.sampled, found.noise, found.backend) == (None, 0, "cpu")
    check(found, x, method == "spherical")
    if k == 3:
        assert adjusted_rand_score(groups, found.labels) > 0.9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_automatic_k(blobs, method, k):
    x, groups = blobs(160, 10, k, 16, seed=2)
    found = cluster(x, method)
    assert found.k == k
    check(found, x, method == "spherical")
    assert adjusted_rand_score(groups, found.labels) > 0.9 or k == 1


@pytest.mark.parametrize("method", METHODS)
def test_deterministic_on_arrays_and_tensors(blobs, method):
    x, _ = blobs(100, 8, 3, 8)
    a, b = cluster(x, method, seed=5), cluster(torch.from_numpy(x), method, seed=5)
    np.testing.assert_array_equal(a.labels, b.labels)


def test_kmeans_is_kmeans(blobs):
    x, _ = blobs(60, 4, 3, 6)
    np.testing.assert_array_equal(cluster(x, "kmeans", 4, seed=2).labels, kmeans(x, 4, seed=2).labels)


@pytest.mark.parametrize("k", [2, 5, 40, 59, 60])
def test_agglomerative_equals_scikit_learn(blobs, k):
    x, _ = blobs(60, 5, 3, 3)
    expected = AgglomerativeClustering(k).fit_predict(x)
    assert adjusted_rand_score(expected, cluster(x, "agglomerative", k).labels) == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pca_dim", [1, 4])
def test_pca_dim_keeps_results_in_the_given_space(blobs, method, pca_dim):
    x, groups = blobs(120, 30, 2, 20)
    found = cluster(x, method, pca_dim=pca_dim)
    check(found, x, method == "spherical")
    assert found.centroids.shape[1] == 30
    assert adjusted_rand_score(groups, found.labels) > (0.7 if method == "hdbscan" else 0.9)


@pytest.mark.parametrize("method", ["agglomerative", "hdbscan"])
def test_quadratic_methods_sample_large_sets(blobs, method, monkeypatch):
    monkeypatch.setattr(methods, "QUADRATIC_ROWS", 150)
    x, groups = blobs(600, 10, 3, 16)
    found = cluster(x, method, seed=3)
    assert found.sampled == 150
    check(found, x)
    assert adjusted_rand_score(groups, found.labels) > 0.95
    np.testing.assert_array_equal(found.labels, cluster(x, method, seed=3).labels)
    if method == "agglomerative":
        with pytest.raises(UserError, match="from 1 to 150"):
            cluster(x, method, 151)


def test_hdbscan_noise_goes_to_the_nearest_cluster_and_is_counted(blobs):
    random = np.random.default_rng(0)
    x = np.concatenate([random.standard_normal((60, 3)), random.standard_normal((60, 3)) + 20, [[120.0, 20, 20]]])
    found = cluster(x, "hdbscan")
    assert found.k == 2
    assert found.noise >= 1
    assert found.labels[-1] == found.labels[100] != found.labels[0]
    check(found, x)


def test_a_mixture_is_that_of_one_class(blobs):
    x, _ = blobs(90, 5, 3, 4)
    found = cluster(x, "gmm", 3, seed=4)
    mixture = classwise_mixtures(x, np.zeros(90, int), (3,), seed=4)
    np.testing.assert_array_equal(found.labels, mixture.labels[:, 0])
    assert (found.engine, found.iterations) == ("torch", mixture.iterations[0, 0])
    assert found.iterations > 1


def test_a_mixture_finds_what_differs_in_spread_alone():
    random = np.random.default_rng(0)
    x = random.standard_normal((300, 8)) * np.repeat([0.2, 2], 150)[:, None]
    found = cluster(x, "gmm", 2)
    assert adjusted_rand_score(np.repeat([0, 1], 150), found.labels) > 0.9
    assert adjusted_rand_score(np.repeat([0, 1], 150), cluster(x, "kmeans", 2).labels) < 0.2


def test_the_number_of_a_large_mixture_is_chosen_on_a_sample(blobs, monkeypatch):
    monkeypatch.setattr(methods, "QUADRATIC_ROWS", 150)
    sizes = []
    monkeypatch.setattr(
        methods, "classwise_mixtures", lambda x, *a, **o: sizes.append(len(x)) or classwise_mixtures(x, *a, **o)
    )
    x, groups = blobs(600, 10, 3, 16)
    found = cluster(x, "gmm", seed=3)
    assert sizes == [150, 600]
    assert (found.k, found.sampled) == (3, None)
    assert adjusted_rand_score(groups, found.labels) == 1
    check(found, x)


def test_more_components_than_distinct_rows(blobs):
    x, _ = blobs(3, 4, 3, 9)
    found = cluster(np.repeat(x, 10, 0), "gmm", 5)
    assert found.sizes.tolist() == [10, 10, 10]


@pytest.mark.parametrize("method", METHODS)
def test_tiny_and_equal_rows(method):
    for x in (np.ones((1, 3)), np.ones((12, 3)), np.arange(6.0).reshape(2, 3)):
        assert cluster(x, method).k == 1
    if method != "hdbscan":
        found = cluster(np.arange(6.0).reshape(2, 3), method, 2)
        assert found.k == 2


def test_bad_input_is_refused(blobs):
    x, _ = blobs(30, 6, 1, 0)
    with pytest.raises(UserError, match="kmeans, spherical, gmm, agglomerative, hdbscan"):
        cluster(x, "dbscan")
    with pytest.raises(UserError, match="leave k automatic"):
        cluster(x, "hdbscan", 3)
    with pytest.raises(UserError, match="from 1 to 6"):
        cluster(x, pca_dim=7)
    for method in WITH_K:
        for k in (0, 31, 2.5):
            with pytest.raises(UserError, match="from 1 to 30"):
                cluster(x, method, k)
    x[3] = np.nan
    for method in METHODS:
        with pytest.raises(UserError, match="Row 3"):
            cluster(x, method)
