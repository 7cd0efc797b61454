from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs

from fgdemo.clustering import choose_k, classwise_kmeans, kmeans
from fgdemo.clustering.choose_k import bic, simplified_silhouette, stability
from fgdemo.clustering.criteria import CRITERIA as CRITERIA_BY_NAME
from fgdemo.clustering.criteria.bic import choose_by_bic
from fgdemo.clustering.criteria.gap import choose_by_gap
from fgdemo.clustering.criteria.prediction_strength import choose_by_strength, strength
from fgdemo.clustering.criteria.silhouette import choose_by_silhouette
from fgdemo.clustering.criteria.stability import choose_by_stability
from fgdemo.errors import UserError
from train.checkpoint_parts import Rule

CRITERIA = ("principal-gap", "silhouette", "exact-silhouette", "bic", "stability", "gap", "prediction-strength")


def test_simplified_silhouette_by_hand():
    x = np.array([[0.0, 0], [0, 2], [10, 0], [10, 2]])
    # a = 1 and b = sqrt(101) for every row
    assert simplified_silhouette(x, [0, 0, 1, 1]) == pytest.approx(1 - 1 / np.sqrt(101), rel=1e-5)
    # a row alone counts 0; centroids (0, 0), (20/3, 4/3)
    gaps = [(np.hypot(0 - 20 / 3, 2 - 4 / 3), np.hypot(0, 2)), (np.hypot(10 / 3, 4 / 3), 10)]
    gaps.append((np.hypot(10 / 3, 2 / 3), np.hypot(10, 2)))
    expected = sum((b - a) / max(a, b) for a, b in gaps) / 4
    assert simplified_silhouette(x, [0, 1, 1, 1]) == pytest.approx(expected, rel=1e-5)
    assert simplified_silhouette(x, [0, 0, 0, 0]) == 0


def test_bic_is_the_likelihood_of_its_mixture():
    x = np.random.default_rng(0).standard_normal((50, 3)) * 2
    labels = np.arange(50) % 2
    centers = np.stack([x[labels == j].mean(0) for j in range(2)])
    gaps = ((x - centers[labels]) ** 2).sum(1)
    variance = gaps.sum() / (3 * 48)
    share = np.log(25 / 50)
    likelihood = (share - 1.5 * np.log(2 * np.pi * variance) - gaps / (2 * variance)).sum()
    expected = 2 * likelihood - (1 + 6 + 1) * np.log(50)
    assert bic(gaps.sum(), np.array([25, 25]), 3) == pytest.approx(expected)
    assert bic(0.0, np.array([1, 1]), 3) == -np.inf


def test_stability_of_certain_and_uncertain_cuts(blobs):
    x, _ = blobs(120, 16, 3, 12)
    assert stability(x, 1) == 1
    assert stability(x, 3) > 0.98
    assert stability(blobs(120, 64, 1, 0)[0], 3) < 0.5


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_number_of_separated_blobs_is_found(blobs, criterion, k):
    classes = [blobs(150, 32, k, 11, 10 * k + seed)[0] for seed in range(6)]
    found = classwise_kmeans(np.concatenate(classes), np.repeat(np.arange(6), 150), select=criterion, max_k=8)
    assert (found.chosen == k).sum() >= 5, found.chosen


@pytest.mark.parametrize("criterion", CRITERIA)
def test_one_gaussian_in_64_dimensions_is_one_cluster(criterion):
    random = np.random.default_rng(3)
    x = random.standard_normal((10 * 150, 64))
    found = classwise_kmeans(x, np.repeat(np.arange(10), 150), select=criterion)
    assert found.ks[-1] == 12
    assert (found.chosen == 1).sum() >= 9, found.chosen


@pytest.mark.parametrize("criterion", ["silhouette", "principal-gap"])
def test_one_elongated_gaussian_is_one_cluster(criterion):
    random = np.random.default_rng(4)
    x = random.standard_normal((8 * 200, 32)) * np.exp(random.standard_normal(32) * 0.7)
    found = classwise_kmeans(x, np.repeat(np.arange(8), 200), select=criterion, max_k=6)
    assert (found.chosen == 1).sum() >= 7, found.chosen


def test_spherical_choice(blobs):
    directions = np.eye(16)[:3]
    random = np.random.default_rng(0)
    x = directions[np.arange(120) % 3] * random.uniform(1, 50, (120, 1))
    x = x * (1 + 0.01 * random.standard_normal(x.shape)) + random.standard_normal(x.shape) * 0.05
    assert choose_k(x, spherical=True, max_k=6)[0] == 3


def test_large_classes_use_a_bounded_reference():
    x, _ = make_blobs(1500, 8, centers=3, cluster_std=1.0, random_state=0)
    assert choose_k(x, max_k=5)[0] == 3


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_are_those_of_the_partition(blobs, criterion):
    x, _ = blobs(80, 8, 2, 8)
    k, scores = choose_k(x, (1, 2, 3), criterion=criterion)
    assert k == 2
    assert set(scores) == {1, 2, 3}
    if criterion == "silhouette":
        assert scores[1] == 0
        assert scores[2] == pytest.approx(simplified_silhouette(x, kmeans(x, 2, engine="torch").labels), abs=1e-5)
    if criterion == "stability":
        assert scores[1] == 1


def test_all_scores_of_equal_rows_and_single_rows():
    for criterion in CRITERIA:
        assert choose_k(np.ones((9, 4)), criterion=criterion)[0] == 1
        assert choose_k(np.ones((1, 4)), criterion=criterion)[0] == 1


def test_rules():
    nan = np.nan
    ks = (1, 2, 3)
    # excess of K = 2 and 3: rising, falling, negative, unknown, falling
    scores = np.array([[0, 0.5, 0.7], [0, 0.5, 0.505], [0, 0.3, nan], [nan, nan, nan], [0, 0.9, 0.7]])
    reference = np.array([[0, 0.4, 0.5]] * 5)
    small = np.full((5, 3), 0.01)
    assert choose_by_silhouette(ks, scores, reference, small).tolist() == [2, 1, 0, -1, 1]
    assert choose_by_silhouette(ks, scores, reference, small * 10).tolist() == [0, 0, 0, -1, 1]
    assert choose_by_silhouette((2, 3), scores[:4, 1:], reference[:4, 1:], small[:4, 1:]).tolist() == [1, 0, 0, -1]
    # the first of two summits, and the first convincing one
    hilly = np.array([[0, 0.2, 0.1, 0.3], [0, 0.02, 0.01, 0.3]])
    assert choose_by_silhouette((1, 2, 3, 4), hilly, hilly * 0, np.full((2, 4), 0.01)).tolist() == [1, 3]
    assert choose_by_bic(np.array([[-3, -1, -2], [nan, nan, nan], [-5, nan, nan]])).tolist() == [1, -1, 0]
    stable = np.array([[1, 0.99, 0.98], [1, 0.99, 0.9], [1, 0.7, 0.6], [1, nan, nan], [nan, nan, nan]])
    assert choose_by_stability(ks, stable).tolist() == [2, 1, 0, 0, -1]
    assert choose_by_stability((2, 3), stable[2:3, 1:]).tolist() == [0]
    # gaps that rise by more than the error, by less, that are unknown in between, unknown at all
    gap = np.array([[0, 0.5, 0.7], [0, 0.5, 0.55], [0.3, nan, 0.9], [nan, nan, nan], [0.5, 0.4, 0.9]])
    assert choose_by_gap(ks, gap, np.full((5, 3), 0.1)).tolist() == [2, 1, 2, -1, 0]
    strong = np.array([[1, 0.9, 0.8], [1, 0.9, 0.7], [1, 0.5, 0.9], [1, nan, nan], [nan, nan, nan]])
    assert choose_by_strength(ks, strong).tolist() == [2, 1, 2, 0, -1]
    assert choose_by_strength((2, 3), np.array([[0.5, 0.6]])).tolist() == [0]


def test_unknown_criterion_is_refused(blobs):
    with pytest.raises(UserError, match=r"principal-gap, silhouette, .*, bic, .*, gap, .*, cosine-index"):
        choose_k(blobs(20, 3, 1, 0)[0], criterion="elbow")


@pytest.mark.parametrize("criterion", ["silhouette", "bic"])
def test_outliers_are_no_cluster_unless_allowed(criterion: str) -> None:
    """Two blobs of 60 rows and one far row: three clusters explain it best, but one of them would be the outlier."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 8)), rng.normal(size=(60, 8)) + 12, np.full((1, 8), -60.0)])
    labels = np.zeros(len(x), int)
    strict = classwise_kmeans(x, labels, range(1, 5), select=criterion)
    lenient = classwise_kmeans(x, labels, range(1, 5), select=criterion, min_size=1, min_share=0)
    assert lenient.chosen[0] == 3
    kept = strict.subclass_labels()
    assert np.bincount(kept).min() >= 2


def test_cosine_index_by_hand():
    # centroids (3, 0.5) and (1, 4); the mean of the class is far from the origin, which cosines must not forget
    x = np.array([[3.0, 0], [3, 1], [0, 4], [2, 4]])
    found = classwise_kmeans(x, np.zeros(4, int), (1, 2), init=None, select="cosine-index", min_size=1)
    assert sorted(np.bincount(found.labels[:, 1]).tolist()) == [2, 2]

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    first, second = np.array([3, 0.5]), np.array([1.0, 4])
    apart = cosine(first, second)
    compact = cosine(x[0], first) + cosine(x[1], first) + cosine(x[2], second) + cosine(x[3], second)
    index = apart / (compact + apart)
    assert found.scores["cosine-index"][0, 1] == pytest.approx(-index, rel=1e-5)
    assert np.isnan(found.scores["cosine-index"][0, 0])
    published = classwise_kmeans(x, np.zeros(4, int), (1, 2), select="cosine-index-as-published", min_size=1)
    assert published.scores["cosine-index-as-published"][0, 1] == pytest.approx(index, rel=1e-5)
    # it knows no K = 1, which is left only where nothing else can be
    assert found.chosen.tolist() == published.chosen.tolist() == [2]
    assert choose_k(x[:1], criterion="cosine-index")[0] == 1
    assert choose_k(x[:1], criterion="cosine-index-as-published")[0] == 1


def test_a_row_at_the_origin_has_no_cosine():
    """Features after a ReLU may be all zero; such a row adds nothing to the compactness of its cluster."""
    x = np.random.default_rng(1).uniform(0, 1, (20, 64)).astype(np.float32)
    x[10:] += 5
    first, second = x[:10] / np.linalg.norm(x[:10], axis=1, keepdims=True), x[10:]
    second = second / np.linalg.norm(second, axis=1, keepdims=True)
    for row in range(10):
        rows, units = x.copy(), first.copy()
        rows[row], units[row] = 0, 0
        means = [rows[:10].mean(0), rows[10:].mean(0)]
        one, two = (mean / np.linalg.norm(mean) for mean in means)
        apart = one @ two
        expected = -apart / ((units @ one).sum() + (second @ two).sum() + apart)
        found = classwise_kmeans(rows, np.zeros(20, int), (2,), select="cosine-index", min_size=1)
        assert found.scores["cosine-index"][0, 0] == pytest.approx(expected, rel=1e-4)


def test_the_published_sign_of_the_cosine_index_is_wrong(blobs):
    """FGDCC takes the largest index; on separated groups that is not their number, the smallest is.

    Cosines need an origin away from the class: around it, neither sign finds the number.
    """
    classes = [blobs(100, 32, k, 11, 10 * k + seed)[0] for k in (3, 4) for seed in range(5)]
    truth = np.repeat([3, 4], 5)
    labels = np.repeat(np.arange(10), 100)
    rows = np.concatenate(classes) + 3
    corrected = classwise_kmeans(rows, labels, range(2, 6), select="cosine-index").chosen
    published = classwise_kmeans(rows, labels, range(2, 6), select="cosine-index-as-published").chosen
    assert (corrected == truth).mean() >= 0.9, corrected
    assert (published == truth).mean() <= 0.3, published
    around = classwise_kmeans(np.concatenate(classes), labels, range(2, 6), select="cosine-index").chosen
    assert (around == truth).mean() <= 0.5, around


def test_commands_know_every_criterion():
    assert get_args(Rule) == tuple(CRITERIA_BY_NAME)


def test_prediction_strength_by_hand():
    # cluster 0: rows 0 to 3, of which the other half keeps 3 together; cluster 1: both rows together
    labels = torch.tensor([[[0, 0, 0, 0, 1, 1, -1]]])
    predicted = torch.tensor([[[0, 0, 0, 1, 1, 1, -1]]])
    assert strength(labels, predicted, (2,)).item() == pytest.approx(3 / 6)
    # a cluster of one row has no pair to lose
    assert strength(torch.tensor([[[0, 0, 1]]]), torch.tensor([[[0, 0, 0]]]), (2,)).item() == 1


def test_gap_by_hand():
    """The gap is the difference of log W between references of the same seed and the rows."""
    x = np.random.default_rng(0).standard_normal((40, 6))
    found = classwise_kmeans(x, np.zeros(40, int), (1, 2), select="gap")
    spread = classwise_kmeans(x * [1, 1, 1, 1, 1, 3], np.zeros(40, int), (1, 2), select="gap")
    scaled = classwise_kmeans(7 * x, np.zeros(40, int), (1, 2), select="gap")
    np.testing.assert_allclose(scaled.scores["gap"], found.scores["gap"], atol=1e-4)
    assert not np.allclose(spread.scores["gap"], found.scores["gap"], atol=1e-3)
    # the references of K = 1 have the class's own variance, up to sampling
    assert abs(found.scores["gap"][0, 0]) < 0.1
    assert 0 < found.scores["gap_error"][0, 1] < 0.2
