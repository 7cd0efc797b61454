"""Figures against scikit-learn and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, log_loss, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as sk_confusion
from sklearn.neighbors import KNeighborsClassifier

from train.metrics import (
    classification_metrics,
    confusion_matrix,
    expected_calibration_error,
    knn_predict,
    topk_correct,
    wilson_interval,
)


@pytest.fixture
def scored() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(0, 7, (400,), generator=generator)
    logits = torch.randn(400, 7, generator=generator) + 1.5 * torch.nn.functional.one_hot(targets, 7)
    return logits, targets


def test_agrees_with_scikit_learn(scored: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = scored
    found = classification_metrics(logits, targets)
    predicted, probability = logits.argmax(1).numpy(), logits.double().softmax(1).numpy()
    assert found["top1"] == pytest.approx((predicted == targets.numpy()).mean())
    assert found["top5"] == pytest.approx(top_k_accuracy_score(targets, probability, k=5))
    assert found["macro"] == pytest.approx(balanced_accuracy_score(targets, predicted))
    assert found["nll"] == pytest.approx(log_loss(targets, probability))
    assert found["errors"] == (predicted != targets.numpy()).sum()
    np.testing.assert_array_equal(
        confusion_matrix(logits.argmax(1), targets, 7), sk_confusion(targets, predicted, labels=range(7))
    )


def test_macro_counts_only_classes_that_occur() -> None:
    logits = torch.eye(4)[[0, 0, 1]]
    assert classification_metrics(logits, torch.tensor([0, 0, 2]))["macro"] == pytest.approx(0.5)


def test_top5_of_three_classes_is_one() -> None:
    assert topk_correct(torch.randn(9, 3), torch.arange(9) % 3, 5).all()


def test_calibration_error_by_hand() -> None:
    # Two samples at confidence 0.9 with one right, two at 0.6 with both right: (|0.9-0.5| + |0.6-1|) / 2.
    probability = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    error = expected_calibration_error(probability.log(), torch.tensor([0, 1, 0, 0]))
    assert error == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (3, 10), (10, 10), (4900, 5000)])
def test_wilson_solves_its_equation(hits: int, total: int) -> None:
    low, high = wilson_interval(hits, total)
    assert 0 <= low <= hits / total <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:
            distance = abs(hits / total - bound) / math.sqrt(bound * (1 - bound) / total)
            assert distance == pytest.approx(1.959964, rel=1e-4)


def test_nearest_neighbours_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    gallery, queries = rng.normal(size=(120, 8)).astype("float32"), rng.normal(size=(40, 8)).astype("float32")
    labels = rng.integers(0, 5, 120)
    reference = KNeighborsClassifier(
        n_neighbors=9, metric="cosine", algorithm="brute", weights=lambda d: np.exp(-d / 0.07)
    ).fit(gallery, labels)
    found = knn_predict(torch.from_numpy(queries), torch.from_numpy(gallery), torch.from_numpy(labels), 5, k=9)
    np.testing.assert_array_equal(found.argmax(1).numpy(), reference.predict(queries))
