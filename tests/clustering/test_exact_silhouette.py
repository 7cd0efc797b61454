"""The silhouette by distances between rows, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from fgdemo.clustering import classwise_kmeans
from fgdemo.clustering.batch import make_batch
from fgdemo.clustering.criteria import exact_silhouette as module


def rows(sizes: list[int], dim: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    x = (
        rng.normal(size=(len(labels), dim))
        + 2 * rng.normal(size=(len(sizes), 3, dim))[labels, np.arange(len(labels)) % 3]
    )
    return x + 20, labels


def test_equals_scikit_learn() -> None:
    x, labels = rows([40, 25, 60])
    found = classwise_kmeans(x, labels, [1, 2, 3, 5], select="exact-silhouette")
    for c in range(3):
        mine = labels == c
        assert found.scores["exact-silhouette"][c, 0] == 0
        for position in (1, 2, 3):
            expected = silhouette_score(x[mine], found.labels[mine, position])
            np.testing.assert_allclose(found.scores["exact-silhouette"][c, position], expected, atol=1e-4)


def test_by_hand_with_a_row_alone() -> None:
    x = torch.tensor([[[0.0], [1.0], [10.0]]])
    batch = make_batch(x, torch.tensor([3]))
    # a = 1; b = 10 and 9; the third is alone: (9/10 + 8/9 + 0) / 3
    found = module.exact_silhouette(batch, torch.tensor([[[0, 0, 1]]]), (2,), 0)
    np.testing.assert_allclose(found, [[(0.9 + 8 / 9) / 3]], rtol=1e-5)


def test_a_sample_is_close_and_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = rows([300, 280])
    score = {}
    for name, most, values in (("all", 512, 1 << 24), ("sample", 100, 1 << 24), ("blocks", 512, 1)):
        monkeypatch.setattr(module, "EXACT_ROWS", most)
        monkeypatch.setattr(module, "BLOCK_VALUES", values)
        score[name] = classwise_kmeans(x, labels, [2, 3], select="exact-silhouette").scores["exact-silhouette"]
    np.testing.assert_array_equal(score["blocks"], score["all"])
    assert not np.array_equal(score["sample"], score["all"])
    np.testing.assert_allclose(score["sample"], score["all"], atol=0.05)


def test_finds_the_number_of_separated_groups() -> None:
    rng = np.random.default_rng(0)
    centres = 8 * np.eye(5)
    parts = [rng.normal(size=(100, 5)) + centres[rng.integers(0, k, 100)] for k in (1, 2, 3, 4)]
    found = classwise_kmeans(np.concatenate(parts), np.repeat(np.arange(4), 100), max_k=6, select="exact-silhouette")
    assert found.chosen.tolist() == [1, 2, 3, 4]
