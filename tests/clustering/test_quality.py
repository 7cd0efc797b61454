from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference

from fgdemo.clustering import kmeans, quality
from fgdemo.errors import UserError


@pytest.fixture
def case(blobs):
    x, groups = blobs(120, 6, 3, 5)
    return x, groups, kmeans(x, 4).labels


def test_equal_to_scikit_learn(case):
    x, groups, labels = case
    assert quality.nmi(groups, labels) == pytest.approx(reference.normalized_mutual_info_score(groups, labels))
    assert quality.ami(groups, labels) == pytest.approx(reference.adjusted_mutual_info_score(groups, labels))
    assert quality.ari(groups, labels) == pytest.approx(reference.adjusted_rand_score(groups, labels))
    assert quality.silhouette(x, labels) == pytest.approx(reference.silhouette_score(x, labels))


def test_inertia_ratio(case):
    x, _, labels = case
    total = ((x - x.mean(0)) ** 2).sum()
    inside = sum(((x[labels == j] - x[labels == j].mean(0)) ** 2).sum() for j in range(4))
    assert quality.inertia_ratio(x, labels) == pytest.approx(inside / total, rel=1e-5)
    assert quality.inertia_ratio(x, labels * 7 + 2) == pytest.approx(inside / total, rel=1e-5)
    assert quality.inertia_ratio(x, np.zeros(120, int)) == pytest.approx(1)
    assert quality.inertia_ratio(x, np.arange(120)) == pytest.approx(0, abs=1e-9)
    assert quality.inertia_ratio(np.ones((5, 2)), [0, 0, 1, 1, 1]) == 0


def test_hungarian_accuracy_by_hand():
    assert quality.hungarian_accuracy([0, 0, 1, 1, 2, 2], [1, 1, 2, 2, 0, 0]) == 1
    # one of three clusters can stand for the only group
    assert quality.hungarian_accuracy([0, 0, 0, 0], [0, 0, 1, 2]) == 0.5
    assert quality.hungarian_accuracy([0, 0, 1, 1, 1], [0, 1, 1, 1, 0]) == 0.6


def test_permutation_of_cluster_ids_changes_nothing(case):
    _, groups, labels = case
    other = np.array([3, 1, 0, 2])[labels]
    for score in (quality.nmi, quality.ami, quality.ari, quality.hungarian_accuracy):
        assert score(groups, labels) == pytest.approx(score(groups, other))


def test_silhouette_of_degenerate_clusterings_and_of_a_sample(case, monkeypatch):
    x, _, labels = case
    assert np.isnan(quality.silhouette(x, np.zeros(120, int)))
    assert quality.silhouette(x, np.arange(120)) == 0
    whole = quality.silhouette(x, labels)
    monkeypatch.setattr(quality, "SILHOUETTE_ROWS", 80)
    part = quality.silhouette(x, labels, seed=1)
    assert part == quality.silhouette(x, labels, seed=1)
    assert part != whole
    assert part == pytest.approx(whole, abs=0.05)


def test_lengths_must_agree(case):
    x, groups, labels = case
    with pytest.raises(UserError, match="one label a row"):
        quality.nmi(groups, labels[:-1])
    with pytest.raises(UserError, match="one label a row"):
        quality.inertia_ratio(x, labels[:-1])
