"""Least sizes, K that does not flicker, one class again while the rest stays, progress."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fgdemo.clustering import SteadyK, classwise_kmeans, recluster_classes
from fgdemo.errors import UserError


def features(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(6), [40, 25, 30, 12, 50, 3])
    x = rng.normal(size=(len(labels), 8)) + 4 * rng.normal(size=(6, 3, 8))[labels, rng.integers(0, 3, len(labels))]
    return x, labels


def test_a_least_size_by_hand() -> None:
    # the row nearest to the lone one joins it, and nothing else moves
    x = np.array([[0.0], [1.0], [2.0], [3.0], [4.5], [20.0]])
    plain = classwise_kmeans(x, np.zeros(6, int), [2], min_size=1)
    assert sorted(plain.sizes[0].tolist()) == [1, 5]
    ours = classwise_kmeans(x, np.zeros(6, int), [2], min_size=1, at_least=2)
    far = ours.labels[5, 0]
    assert np.flatnonzero(ours.labels[:, 0] == far).tolist() == [4, 5]
    np.testing.assert_allclose(ours.centroids[0, far], [12.25])
    np.testing.assert_allclose(ours.inertia[0, 0], 2 * 7.75**2 + 5)


@pytest.mark.parametrize("engine", ["torch", "faiss", "sklearn"])
@pytest.mark.parametrize("at_least", [2, 5, 8])
def test_every_cluster_has_its_least_size(engine: str, at_least: int) -> None:
    x, labels = features()
    x[::7] *= 3
    found = classwise_kmeans(x, labels, [1, 2, 3, 5], engine=engine, at_least=at_least, select=2)
    for c, size in enumerate(np.bincount(labels)):
        for position, k in enumerate(found.ks):
            sizes = found.sizes[c, found.block(k)]
            admissible = k == 1 or size >= k * at_least
            assert np.isnan(found.inertia[c, position]) != admissible
            assert not admissible or k == 1 or sizes.min() >= at_least
            assert not admissible or sizes.sum() == size


def test_the_least_size_leaves_what_is_large_enough() -> None:
    x, labels = features()
    plain, ours = (classwise_kmeans(x, labels, [1, 2], at_least=n, select=1) for n in (1, 2))
    large = plain.sizes.min(1) >= 2
    mine = large[labels]
    assert mine.any()
    np.testing.assert_array_equal(ours.labels[mine], plain.labels[mine])


def test_k_changes_after_so_many_equal_choices() -> None:
    steady = SteadyK(patience=2)
    seen = [steady.settle(k).tolist() for k in ([3, 1], [2, 1], [3, 4], [2, 4], [2, 1], [0, 2], [2, 3])]
    # class 0: one 2 is not enough, two in a row are; class 1: 4 twice, then 1, 2 and 3 once each
    assert seen == [[3, 1], [3, 1], [3, 1], [3, 4], [2, 4], [2, 4], [2, 4]]
    assert SteadyK(1).settle([5]).tolist() == [5]


def test_no_rows_neither_count_nor_break_a_row_of_choices() -> None:
    steady = SteadyK(2)
    assert [steady.settle([k]).tolist() for k in (3, 2, 0, 2)] == [[3], [3], [3], [2]]


def test_steady_k_goes_on_from_its_state_and_grows_with_the_classes() -> None:
    first = SteadyK(2)
    first.settle([3])
    first.settle([2])
    second = SteadyK(2)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.settle([2, 7]).tolist() == [2, 7]
    with pytest.raises(UserError, match="patience"):
        SteadyK(0)


def test_another_choice_of_k_gives_its_labels_where_it_can() -> None:
    x, labels = features()
    found = classwise_kmeans(x, labels, [1, 2, 5], select=1)
    other = found.with_chosen(np.array([5, 2, 1, 5, 7, 5]))
    # 7 is no candidate, and three rows have no five clusters
    assert other.chosen.tolist() == [5, 2, 1, 5, 1, 1]
    np.testing.assert_array_equal(other.subclass_labels()[labels == 0], found.labels[labels == 0, 2])


def test_one_class_again_while_the_rest_stays() -> None:
    x, labels = features()
    found = classwise_kmeans(x, labels, [1, 2, 3], select=3)
    rng = np.random.default_rng(1)
    moved = x + 0.05 * rng.normal(size=x.shape)
    again = recluster_classes(found, moved, [2], select=2)
    mine = labels == 2
    others = np.arange(6) != 2
    np.testing.assert_array_equal(again.labels[~mine], found.labels[~mine])
    for name in ("centroids", "sizes", "inertia", "means", "chosen"):
        np.testing.assert_array_equal(getattr(again, name)[others], getattr(found, name)[others])
    assert again.chosen[2] == 2
    # ids descend: separated blobs that have hardly moved keep every label
    np.testing.assert_array_equal(again.labels[mine], found.labels[mine])
    np.testing.assert_allclose(again.means[2], moved[mine].mean(0), rtol=1e-5)
    alone = classwise_kmeans(moved[mine], np.zeros(mine.sum(), int), [1, 2, 3], select=2, init=found.centroids[2:3])
    np.testing.assert_array_equal(again.inertia[2], alone.inertia[0])
    assert recluster_classes(found, moved, []) is found


def test_one_small_class_again() -> None:
    x, labels = features()
    found = classwise_kmeans(x, labels, [1, 2, 5], select=2)
    again = recluster_classes(found, x + 1, [5], select=2)
    assert np.isnan(again.inertia[5, 2])
    np.testing.assert_allclose(again.means[5], found.means[5] + 1, rtol=1e-5)


def test_one_class_again_refuses() -> None:
    x, labels = features()
    found = classwise_kmeans(x, np.where(labels == 1, 0, labels), [1, 2], select=2)
    for classes, words in (([1], "Class 1 has no rows"), ([6], "classes"), (["a"], "classes")):
        with pytest.raises(UserError, match=words):
            recluster_classes(found, x, classes)
    with pytest.raises(UserError, match="rows"):
        recluster_classes(found, x[1:], [0])


def test_progress_counts_classes_and_may_end_it() -> None:
    x, labels = features()
    seen: list[tuple[int, int]] = []
    classwise_kmeans(x, labels, [1, 2], progress=lambda *now: seen.append(now))
    assert seen[-1] == (6, 6)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) > 1

    def stop(done: int, of: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        classwise_kmeans(x, labels, [1, 2], progress=stop)
