"""Scores of divisions by hand-computed cases, and divisions against scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from fgdemo.errors import UserError
from train.evaluation.controls import Features
from train.evaluation.divisions import (
    Division,
    Truth,
    ami_replicates,
    by_kmeans,
    by_ward,
    chance,
    k_errors,
    score,
)

# Coarse class 0 holds fine 0 and 1, class 1 holds fine 2 alone, class 2 holds fine 3, 4 and 5.
COARSE_OF = np.array([0, 0, 1, 2, 2, 2])


def truth_of(train_fine: np.ndarray, held_fine: np.ndarray) -> Truth:
    return Truth.of((COARSE_OF[train_fine], train_fine), (COARSE_OF[held_fine], held_fine))


@pytest.fixture
def blobs() -> tuple[Features, Truth]:
    """Fine classes far apart in the plane; fine 1 lies where class 2 lies."""
    centres = torch.tensor([[0.0, 0], [30, 0], [0, 30], [31, 1], [60, 0], [60, 60]])
    generator = torch.Generator().manual_seed(0)
    train_fine, held_fine = np.repeat(np.arange(6), 12), np.repeat(np.arange(6), 7)

    def around(fine: np.ndarray) -> torch.Tensor:
        return centres[torch.from_numpy(fine)] + 0.3 * torch.randn(len(fine), 2, generator=generator)

    return Features("points", around(train_fine), around(held_fine)), truth_of(train_fine, held_fine)


def division(truth: Truth, held: np.ndarray, k: str = "oracle") -> Division:
    return Division("test", False, k, np.asarray(held), np.zeros_like(truth.train_coarse))


def test_truth_counts_and_scores_classes_with_two_fine_ones() -> None:
    fine = np.repeat(np.arange(6), 3)
    truth = truth_of(fine, fine)
    assert truth.counts.tolist() == [2, 1, 3]
    assert truth.scored.tolist() == [0, 2]
    assert truth_of(fine, np.array([2, 3, 4])).scored.tolist() == [2]
    with pytest.raises(UserError, match="nothing to discover"):
        truth_of(np.array([0, 2, 3]), np.array([0, 2, 3]))


def test_perfect_and_useless_divisions() -> None:
    fine = np.repeat(np.arange(6), 4)
    truth = truth_of(fine, fine)
    perfect = score(division(truth, 5 - fine), truth)
    assert [perfect[name] for name in ("ami", "ari", "accuracy", "usage")] == pytest.approx([1, 1, 1, 1])
    undivided = score(division(truth, np.zeros_like(fine)), truth)
    assert (undivided["ami"], undivided["ari"]) == pytest.approx((0, 0))
    # one cluster: the largest fine class of each is right, 1/2 and 1/3; usage exp(0) over 2 and over 3
    assert undivided["accuracy"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert undivided["usage"] == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_each_scored_class_counts_the_same_and_others_not() -> None:
    """Class 0 is found by ten pictures, class 2 missed by a hundred; the single one of class 1 is no merit."""
    held_fine = np.repeat([0, 1, 2, 3, 4, 5], [5, 5, 500, 40, 30, 30])
    truth = truth_of(np.arange(6).repeat(2), held_fine)
    clusters = np.where(held_fine < 2, held_fine, 0)
    found = score(division(truth, clusters), truth)
    assert found["ami"] == pytest.approx(0.5)
    assert adjusted_mutual_info_score(held_fine, 10 * COARSE_OF[held_fine] + clusters) > 0.8


def test_scores_equal_scikit_learn_class_by_class() -> None:
    generator = np.random.default_rng(0)
    held_fine, clusters = generator.integers(0, 6, 200), generator.integers(0, 4, 200)
    truth = truth_of(np.arange(6), held_fine)
    found = score(division(truth, clusters), truth)
    inside = [COARSE_OF[held_fine] == c for c in (0, 2)]
    expected = [adjusted_mutual_info_score(held_fine[i], clusters[i]) for i in inside]
    assert found["ami"] == pytest.approx(np.mean(expected))
    assert found["ari"] == pytest.approx(np.mean([adjusted_rand_score(held_fine[i], clusters[i]) for i in inside]))


def test_names_of_clusters_do_not_matter() -> None:
    generator = np.random.default_rng(1)
    held_fine, clusters = generator.integers(0, 6, 100), generator.integers(0, 3, 100)
    truth = truth_of(np.arange(6), held_fine)
    first, second = (score(division(truth, found), truth) for found in (clusters, 7 - clusters))
    for name in ("ami", "ari", "accuracy", "usage"):
        assert first[name] == pytest.approx(second[name])


def test_kmeans_assigns_inside_the_coarse_class(blobs: tuple[Features, Truth]) -> None:
    features, truth = blobs
    wanted = {"oracle": truth.counts, "chosen": np.array([1, 1, 2])}
    oracle, chosen = by_kmeans(features, truth, wanted, seed=0, control=True)
    assert score(oracle, truth)["ami"] == pytest.approx(1)
    assert score(oracle, truth)["train"]["ami"] == pytest.approx(1)
    # fine 1 lies between the centroids of class 2, yet its pictures are divided among those of class 0
    assert len(np.unique(oracle.held[truth.held_fine == 1])) == 1
    assert [len(np.unique(chosen.held[truth.held_coarse == c])) for c in range(3)] == [1, 1, 2]
    assert (oracle.given_k, chosen.given_k) == ("oracle", "chosen")


def test_more_clusters_than_distinct_pictures_leave_a_class_whole() -> None:
    features = Features("equal", torch.zeros(6, 2), torch.zeros(6, 2))
    truth = truth_of(np.arange(6), np.arange(6))
    (found,) = by_kmeans(features, truth, {"oracle": truth.counts}, seed=0, control=True)
    assert not found.held.any()


def test_ward_equals_scikit_learn_and_assigns_by_the_nearest_picture() -> None:
    generator = np.random.default_rng(2)
    train_fine, held_fine = generator.integers(0, 6, 120), generator.integers(0, 6, 80)
    train, held = generator.normal(size=(120, 4)), generator.normal(size=(80, 4))
    features = Features("noise", torch.from_numpy(train).float(), torch.from_numpy(held).float())
    truth = truth_of(train_fine, held_fine)
    (found,) = by_ward(features, truth, {"oracle": truth.counts}, seed=0)
    for c in (0, 2):
        mine, theirs = truth.train_coarse == c, truth.held_coarse == c
        expected = AgglomerativeClustering(truth.counts[c], linkage="ward").fit_predict(train[mine])
        assert adjusted_rand_score(expected, found.train[mine]) == 1
        gaps = ((held[theirs][:, None] - train[mine][None]) ** 2).sum(2)
        assert np.array_equal(found.held[theirs], found.train[mine][gaps.argmin(1)])


def test_chance_keeps_sizes_and_knows_nothing() -> None:
    held_fine = np.repeat(np.arange(6), 30)
    truth = truth_of(held_fine, held_fine)
    perfect = replace(division(truth, held_fine), train=held_fine)
    found = chance(perfect, truth)
    assert abs(found["ami"]) < 0.02
    assert found["usage"] == pytest.approx(1)
    assert found["accuracy"] < 0.6
    assert found == chance(perfect, truth)


def test_replicates_surround_the_value_and_are_shared_by_key() -> None:
    generator = np.random.default_rng(3)
    held_fine = generator.integers(0, 6, 300)
    clusters = np.where(generator.random(300) < 0.7, held_fine, 0)
    truth = truth_of(np.arange(6), held_fine)
    one = division(truth, clusters)
    values = ami_replicates(one, truth, ("a set", "test"))
    assert abs(values.mean() - score(one, truth)["ami"]) < 3 * values.std()
    assert 0 < values.std() < 0.1
    assert np.array_equal(values, ami_replicates(one, truth, ("a set", "test")))
    assert not np.array_equal(values, ami_replicates(one, truth, ("a set", "val")))


def test_k_errors() -> None:
    found = k_errors(np.array([2, 3, 0, 1]), np.array([2, 1, 0, 3]))
    assert found["mean_error"] == pytest.approx((0 + 2 + 2) / 3)
    assert found["exact"] == pytest.approx(1 / 3)
    assert (found["classes"], found["single_classes"], found["single_kept"]) == (3, 1, 0.0)
    assert k_errors(np.array([2]), np.array([2]))["single_kept"] is None
