"""K-means that goes on from the clusters so far: ids stay, better starts take over under the ids they continue."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from fgdemo.clustering import classwise_kmeans
from fgdemo.clustering.follow import BETTER_BY, follow_kmeans, label_means, take_over
from fgdemo.clustering.quality import classwise_ari

KS = (1, 2, 3)


def blobs(seed: int = 0) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Rows (120, 5), classes (120,), and the true cluster (120,) inside the class: three far blobs in each of two."""
    rng = np.random.default_rng(seed)
    classes = np.repeat([0, 1], 60)
    truth = rng.integers(0, 3, 120)
    centres = rng.normal(size=(2, 3, 5)) * 20
    return torch.from_numpy(centres[classes, truth] + rng.normal(size=(120, 5))).float(), classes, truth


def test_means_of_labels() -> None:
    x = torch.tensor([[0.0], [2.0], [4.0], [9.0]])
    labels = np.array([[0, 0], [0, 1], [0, -1], [0, 0]])
    means = label_means(x, np.array([0, 0, 0, 1]), labels, (1, 2))
    expected = torch.tensor([[[2.0], [0.0], [2.0]], [[9.0], [9.0], [torch.nan]]])
    torch.testing.assert_close(means, expected, equal_nan=True)


def test_ids_stay_while_features_drift() -> None:
    x, classes, truth = blobs()
    before = np.stack([np.zeros_like(truth), np.minimum(truth, 1), truth], 1)
    found = follow_kmeans(x * 1.1 + 0.5, classes, before, KS)
    assert np.array_equal(found.labels[:, 2], truth)


def test_without_anything_known_it_is_a_clustering_from_new_starts() -> None:
    x, classes, _ = blobs()
    nothing = np.full((len(classes), len(KS)), -1)
    found, anew = follow_kmeans(x, classes, nothing, KS, seed=4), classwise_kmeans(x, classes, KS, seed=4)
    assert np.array_equal(found.chosen, anew.chosen)
    for c in (0, 1):
        assert adjusted_rand_score(found.labels[classes == c, 2], anew.labels[classes == c, 2]) == 1


def test_a_challenge_repairs_a_bad_division_and_keeps_the_ids_of_what_goes_on() -> None:
    x, classes, truth = blobs()
    # class 0 stands in a poor local optimum: two of its blobs are one cluster, the third one is cut in two
    bad = truth.copy()
    half = np.flatnonzero((classes == 0) & (truth == 2))
    bad[(classes == 0) & (truth == 1)] = 0
    bad[half] = np.where(x[half, 0].numpy() > np.median(x[half, 0]), 1, 2)
    before = np.stack([np.zeros_like(bad), np.minimum(bad, 1), bad], 1)
    stuck = follow_kmeans(x, classes, before, KS)
    assert adjusted_rand_score(stuck.labels[classes == 0, 2], truth[classes == 0]) < 1
    found = follow_kmeans(x, classes, before, KS, challenge=True)
    mine, other = classes == 0, classes == 1
    assert adjusted_rand_score(found.labels[mine, 2], truth[mine]) == 1
    assert np.array_equal(found.labels[other, 2], truth[other])
    assert found.inertia[0, 2] < (1 - BETTER_BY) * stuck.inertia[0, 2]
    # the largest part of what went on keeps its id
    counts = np.bincount(found.labels[mine & (bad == 0), 2], minlength=3)
    assert counts.argmax() == 0
    # the tables agree with the labels
    sizes = np.bincount(found.labels[mine, 2], minlength=3)
    assert np.array_equal(found.sizes[0, found.block(3)], sizes)
    means = label_means(x, classes, found.labels, KS).numpy()
    np.testing.assert_allclose(found.centroids, means, rtol=1e-4, atol=1e-4)


def test_taking_over_nothing_changes_nothing() -> None:
    x, classes, _ = blobs()
    found, rival = (classwise_kmeans(x, classes, KS, seed=seed) for seed in (0, 1))
    same = take_over(found, rival, np.zeros((2, 3), bool))
    assert np.array_equal(same.labels, found.labels)
    assert np.array_equal(same.chosen, found.chosen)


def test_ari_of_every_class_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    classes, a, b = rng.integers(0, 5, 200), rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    b[classes == 1] = a[classes == 1]
    a[classes == 2] = b[classes == 2] = 0
    a[classes == 3] = 0
    classes[classes == 4] = 5
    found = classwise_ari(classes, a, b)
    for c in (0, 1, 2, 3, 5):
        mine = classes == c
        assert found[c] == pytest.approx(adjusted_rand_score(a[mine], b[mine]))
    assert np.isnan(found[4])


def test_ari_leaves_out_rows_without_a_cluster() -> None:
    classes, a, b = np.zeros(5, int), np.array([0, 0, 1, 1, -1]), np.array([1, 1, 0, 0, 0])
    assert classwise_ari(classes, a, b)[0] == 1
