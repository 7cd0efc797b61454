from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from fgdemo.clustering import match_centroids, match_ids


def test_permuted_labels_recover_their_ids():
    old = np.array([0, 0, 1, 1, 2, 2, 2])
    new = np.array([2, 2, 0, 0, 1, 1, 1])
    ids, next_id = match_ids(old, new, [10, 11, 40], 50)
    assert ids.tolist() == [11, 40, 10]
    assert next_id == 50


def test_split_and_merged_clusters():
    # cluster 7 splits into 3 + 2 rows: the larger part keeps the id
    ids, next_id = match_ids([0] * 5, [0, 0, 0, 1, 1], [7], 8)
    assert (ids.tolist(), next_id) == ([7, 8], 9)
    # 7 and 8 merge: the larger one's id stays, the other is gone for good
    ids, next_id = match_ids([0, 0, 1, 1, 1], [0] * 5, [7, 8], 9)
    assert (ids.tolist(), next_id) == ([8], 9)


def test_no_shared_row_gives_fresh_ids():
    ids, next_id = match_ids([0, 0, -1, -1], [-1, -1, 0, 1], [3], 4)
    assert (ids.tolist(), next_id) == ([4, 5], 6)
    assert match_ids([], [], [], 0)[1] == 0


def test_ids_are_never_reused_over_many_rounds():
    random = np.random.default_rng(0)
    ids, next_id = np.arange(3), 3
    labels = random.integers(0, 3, 60)
    gone: set[int] = set()
    for _ in range(30):
        new = np.unique(random.integers(0, random.integers(1, 7), 60), return_inverse=True)[1]
        fresh_ids, next_id = match_ids(labels, new, ids, next_id)
        assert len(set(fresh_ids.tolist())) == new.max() + 1
        assert not gone & set(fresh_ids.tolist())
        gone |= set(ids.tolist()) - set(fresh_ids.tolist())
        assert fresh_ids.max() < next_id
        labels, ids = new, fresh_ids


@given(st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 4)), min_size=1, max_size=60))
def test_matching_keeps_as_many_rows_as_one_dense_assignment(pairs):
    old, new = np.array(pairs).T
    ids, _ = match_ids(old, new, np.arange(6), 6)
    table = np.zeros((6, 5), int)
    both = (old >= 0) & (new >= 0)
    np.add.at(table, (old[both], new[both]), 1)
    best = table[linear_sum_assignment(table, maximize=True)].sum()
    kept = sum(table[i, j] for j, i in enumerate(ids) if i < 6)
    assert kept == best


def test_centroids():
    old = np.array([[0.0, 0], [5, 0], [9, 9]])
    new = old[[2, 0, 1]] + 0.3
    assert match_centroids(old, new, [4, 5, 6], 7) == (pytest.approx([6, 4, 5]), 7)
    ids, next_id = match_centroids(old[:1], new, [4], 7)
    assert (ids.tolist(), next_id) == ([7, 4, 8], 9)


def test_inconsistent_ids_are_programming_errors():
    with pytest.raises(ValueError, match="below next_id"):
        match_ids([0], [0], [5], 5)
    with pytest.raises(ValueError, match="distinct"):
        match_ids([0], [0], [1, 1], 5)
    with pytest.raises(ValueError, match="has no id"):
        match_ids([2], [0], [1], 5)
