from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from fgdemo.clustering.batch import class_groups, make_batch, rows_of_classes
from fgdemo.clustering.criteria.stability import adjusted_rand
from fgdemo.clustering.lloyd import columns_of, one_hot, relocate, sizes_of
from fgdemo.clustering.seeding import draws, seed_rows


def test_relocate_takes_the_farthest_of_the_worst_cluster_that_can_spare_one():
    # cluster 0 has inertia 6, cluster 1 has 9 in a single row, cluster 2 is empty
    labels = torch.tensor([[0, 0, 0, 1]])
    distances = torch.tensor([[1.0, 3, 2, 9]])
    labels, distances = relocate(labels, distances, 3)
    assert labels.tolist() == [[0, 2, 0, 1]]
    assert distances.tolist() == [[1, 0, 2, 9]]


def test_relocate_fills_several_and_leaves_padding_and_full_problems_alone():
    labels = torch.tensor([[0, 0, 0, -1], [0, 1, 2, 2]])
    distances = torch.tensor([[0.0, 0, 0, 0], [0, 0, 1, 1]])
    filled, _ = relocate(labels, distances, 3)
    assert sorted(filled[0, :3].tolist()) == [0, 1, 2]
    assert filled[0, 3] == -1
    assert filled[1].tolist() == [0, 1, 2, 2]


def test_sizes_of_columns_by_k_restart_cluster():
    # ks (1, 2), two restarts: problems K1r0, K1r1, K2r0, K2r1
    labels = torch.tensor([[[0, 0, -1], [0, 0, -1], [1, 0, -1], [1, 1, -1]]])
    columns = columns_of(labels, (1, 2), 2)
    assert columns.tolist() == [[[0, 0, 6], [1, 1, 6], [3, 2, 6], [5, 5, 6]]]
    assert sizes_of(columns, 6).tolist() == [[2, 2, 1, 1, 0, 2]]
    members = one_hot(columns, 6)
    assert members.sum(2).tolist() == [[2, 2, 1, 1, 0, 2]]
    assert members[0, 2].tolist() == [0, 1, 0]


def test_batch_is_centred_by_class_and_padded_with_zeros():
    x = torch.tensor([[[1.0, 2], [3, 4], [99, 99]], [[0, 0], [0, 3], [0, 6]]])
    batch = make_batch(x, torch.tensor([2, 3]))
    assert batch.mean.tolist() == [[2, 3], [0, 3]]
    assert batch.x[0].tolist() == [[-1, -1], [1, 1], [0, 0]]
    torch.testing.assert_close(batch.square, torch.tensor([[2.0, 2, 0], [9, 0, 9]]))


def test_groups_cover_each_class_once_with_little_padding():
    sizes = np.random.default_rng(0).integers(0, 500, 300)
    groups = class_groups(sizes, columns=40, dim=64, device=torch.device("cpu"))
    assert sorted(np.concatenate(groups).tolist()) == np.flatnonzero(sizes).tolist()
    for group in groups:
        assert sizes[group].min() >= 0.75 * sizes[group].max()


def test_rows_of_classes_lists_the_rows():
    labels = np.array([2, 0, 2, 0, 0])
    rows = rows_of_classes(labels, np.bincount(labels), np.array([0, 2]))
    assert rows.tolist() == [[1, 3, 4], [0, 2, -1]]


def test_seeds_are_distinct_rows_while_there_are_any():
    x = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(0))
    x[0, 3:] = x[0, :1]
    batch = make_batch(x, torch.tensor([12, 12, 7]))
    positions = seed_rows(batch, torch.from_numpy(draws(0, 3, 5, 4)))
    assert positions.shape == (3, 4, 5)
    assert positions[2].max() < 7
    for restart in range(4):
        assert len(set(positions[1, restart].tolist())) == 5
        first = x[0, positions[0, restart]]
        assert len(torch.unique(first[:3], dim=0)) == 3


def test_draws_of_a_problem_do_not_depend_on_later_ones():
    np.testing.assert_array_equal(draws(3, 10, 4, 2)[:4], draws(3, 4, 4, 2))


def test_adjusted_rand_equals_scikit_learn():
    random = np.random.default_rng(0)
    first = np.stack([random.integers(0, k, (5, 30)) for k in (1, 2, 4)], 1)
    second = np.where(random.random(first.shape) < 0.6, first, first[:, :, ::-1])
    ours = adjusted_rand(torch.from_numpy(first), torch.from_numpy(second), (1, 2, 4)).numpy()
    for c in range(5):
        for m in range(3):
            np.testing.assert_allclose(ours[c, m], adjusted_rand_score(first[c, m], second[c, m]), atol=1e-12)
