from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from fgdemo.clustering import pca, project2d, reduce
from fgdemo.clustering.neighbours import nearest_rows, sample_rows
from fgdemo.errors import UserError


def separation(points, groups):
    """Smallest distance of group centres over the largest spread inside a group."""
    centers = np.stack([points[groups == g].mean(0) for g in np.unique(groups)])
    spread = max(np.linalg.norm(points[groups == g] - c, axis=1).mean() for g, c in enumerate(centers))
    gaps = np.linalg.norm(centers[:, None] - centers[None], axis=2)
    return gaps[gaps > 0].min() / spread


@pytest.mark.parametrize("shape", [(80, 10), (10, 80)])
def test_pca_is_the_svd_of_the_centred_rows(shape):
    x = np.random.default_rng(0).standard_normal(shape) + 5
    scores = pca(x, 4)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(scores), np.abs(u[:, :4] * s[:4]), atol=1e-4)
    np.testing.assert_array_equal(scores, pca(torch.from_numpy(x), 4))


def test_all_components_keep_distances(blobs):
    x, _ = blobs(30, 6, 2, 4)
    y = pca(x, 6)
    np.testing.assert_allclose(np.linalg.norm(x[0] - x, axis=1), np.linalg.norm(y[0] - y, axis=1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("d", [0, 7, 2.5])
def test_pca_range(blobs, d):
    with pytest.raises(UserError, match="from 1 to 6"):
        pca(blobs(30, 6, 1, 0)[0], d)


@pytest.mark.parametrize("method", ["pca", "tsne", "umap"])
def test_projection_is_deterministic_and_shows_groups(blobs, method):
    if method == "umap":
        pytest.importorskip("umap")
    x, groups = blobs(90, 12, 3, 14)
    a, b = (project2d(x, method, seed=4) for _ in range(2))
    assert a.points.shape == (90, 2)
    assert a.points.dtype == np.float32
    assert (a.method, a.sampled) == (method, None)
    np.testing.assert_array_equal(a.points, b.points)
    assert separation(a.points, groups) > 2


def test_rows_beyond_the_sample_are_placed_by_their_neighbours(blobs, monkeypatch):
    monkeypatch.setattr(reduce, "PROJECTED_ROWS", 60)
    x, groups = blobs(150, 12, 3, 14)
    found = project2d(x, "tsne", seed=1)
    assert found.sampled == 60
    assert found.points.shape == (150, 2)
    np.testing.assert_array_equal(found.points, project2d(x, "tsne", seed=1).points)
    assert separation(found.points, groups) > 2
    # a row equal to a sampled one lands on it
    sample = sample_rows(150, 60, 1)
    other = np.setdiff1d(np.arange(150), sample)[0]
    x[other] = x[sample[0]]
    points = project2d(x, "tsne", seed=1).points
    np.testing.assert_allclose(points[other], points[sample[0]], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("shape", [(1, 5), (2, 1), (9, 3)])
def test_few_rows_fall_back_to_pca(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    for method in reduce.PROJECTIONS:
        found = project2d(x, method)
        assert found.method == "pca"
        assert found.points.shape == (shape[0], 2)
        assert np.isfinite(found.points).all()


def test_equal_rows_and_one_dimension_project():
    assert np.isfinite(project2d(np.ones((20, 4)), "tsne").points).all()
    assert np.isfinite(project2d(np.arange(20.0)[:, None], "tsne").points).all()


def test_bad_input_is_refused(blobs, monkeypatch):
    x, _ = blobs(20, 3, 1, 0)
    with pytest.raises(UserError, match="pca, tsne, umap"):
        project2d(x, "isomap")
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match="pip install umap-learn"):
        project2d(x, "umap")


def test_nearest_rows_equals_scikit_learn(monkeypatch):
    from fgdemo.clustering import neighbours

    monkeypatch.setattr(neighbours, "BLOCK_DISTANCES", 200)
    random = np.random.default_rng(0)
    x, base = random.standard_normal((70, 5)) + 100, random.standard_normal((40, 5)) + 100
    found, gaps = nearest_rows(x, base, 3)
    distances, expected = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(base).kneighbors(x)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(gaps, distances, rtol=1e-4)
