"""K-means started from, and K judged in, the leading principal components."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from fgdemo.clustering import classwise_kmeans, kmeans
from fgdemo.clustering.batch import make_batch
from fgdemo.clustering.criteria.principal_gap import (
    REFERENCES,
    choose_by_deviation,
    drawn_in,
    gaussian_stand_ins,
    smooth,
)
from fgdemo.clustering.principal import principal_coordinates


def test_principal_gap_by_hand():
    """K = 2 along one component: the best of all cuts of the sorted rows, against those of the stand-ins."""

    def log_inertia(line: np.ndarray) -> float:
        line = np.sort(line)
        cuts = [(line[:i], line[i:]) for i in range(1, len(line))]
        return np.log(min(sum(((part - part.mean()) ** 2).sum() for part in cut) for cut in cuts))

    x = np.random.default_rng(0).standard_normal((30, 4)) + 3 * np.eye(4)[0] * (np.arange(30) % 2)[:, None]
    found = classwise_kmeans(x, np.zeros(30, int), (1, 2), select="principal-gap")
    batch = drawn_in(make_batch(torch.from_numpy(x)[None], torch.tensor([30])), 0)
    line = principal_coordinates(batch, 1)
    own = log_inertia(line[0, :, 0].numpy())
    references = [log_inertia(rows[:, 0].numpy()) for rows in gaussian_stand_ins(line, batch, 0)[0]]
    assert len(references) == REFERENCES
    expected = (np.mean(references) - own) / np.std(references, ddof=1)
    assert found.scores["principal-gap"][0].tolist() == pytest.approx([0, expected], rel=0.05)


def test_stand_ins_have_the_covariance_of_the_class():
    coordinates = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 40, 3)) * [5, 2, 1]).float()
    batch = make_batch(coordinates, torch.tensor([40, 33]))
    lines = principal_coordinates(batch, 3)
    drawn = gaussian_stand_ins(lines, batch, 0)
    assert drawn.shape == (2, REFERENCES, 40, 3)
    assert not drawn[1, :, 33:].any()
    expected = torch.diag_embed(lines.square().sum(1))[:, None].expand(-1, REFERENCES, -1, -1)
    torch.testing.assert_close(drawn.transpose(2, 3) @ drawn, expected, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(drawn.sum(2), torch.zeros(2, REFERENCES, 3), rtol=0, atol=1e-3)


def test_far_rows_are_drawn_in():
    # distances 1, 2, 3, 4, 100 from the mean: median 3, and 1 the median of what they differ from it
    radii = np.array([1.0, 2, 3, 4, 100])
    x = np.concatenate([np.diag(radii), -np.diag(radii)])
    batch = drawn_in(make_batch(torch.from_numpy(x)[None], torch.tensor([10])), 0)
    near = np.diag(np.minimum(radii, 3 + 3 * 1.4826))
    torch.testing.assert_close(batch.x[0], torch.from_numpy(np.concatenate([near, -near])).float())


def test_deviations_follow_a_power_law():
    ks = (1, 2, 3, 5)
    law = 0.4 * torch.tensor([1.0, 1, 2, 4], dtype=torch.float64) ** -0.7
    admissible = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    given = torch.where(admissible, law, 77)
    given[2, 1] = 0.3
    found = smooth(given, ks, admissible)
    expected = torch.where(admissible, law, 1)
    expected[2, 1] = 0.3
    expected[:, 0] = 1
    torch.testing.assert_close(found, expected)
    # between two K no line is needed, among three each gives way
    bent = smooth(torch.tensor([[1, 0.4, 0.1, 0.1]], dtype=torch.float64), ks, admissible[:1])[0]
    assert bent[2] > 0.1
    assert bent[1:].log().mean() == pytest.approx(np.log([0.4, 0.1, 0.1]).mean())


def test_choice_by_deviation():
    nan = np.nan
    # 2.576 and 2.807 leave half a percent and half of that above them
    scores = np.array([[0, 5, 6], [0, 2.7, 1], [0, 2.9, 1], [0, 2.7, nan], [nan, nan, nan], [0, nan, nan]])
    assert choose_by_deviation((1, 2, 3), scores).tolist() == [2, 0, 1, 1, -1, 0]
    assert choose_by_deviation((2, 3), scores[:2, 1:]).tolist() == [1, 0]


def test_number_of_clusters_in_many_more_dimensions_than_rows():
    random = np.random.default_rng(0)
    truth = np.repeat([1, 2, 3], 3)
    parts = [6 / np.sqrt(2) * np.eye(900)[np.arange(150) % k] + random.standard_normal((150, 900)) for k in truth]
    found = classwise_kmeans(np.concatenate(parts), np.repeat(np.arange(9), 150), range(1, 6), select="principal-gap")
    assert (found.chosen == truth).sum() >= 8, found.chosen


@pytest.mark.parametrize("n", [30, 300])
@pytest.mark.parametrize("spherical", [False, True])
def test_coordinates_are_those_of_the_covariance(n, spherical):
    x = np.random.default_rng(1).standard_normal((2, n, 60)) * 0.7 ** np.arange(60) + 5
    sizes = torch.tensor([n, n - 4])
    batch = make_batch(torch.from_numpy(x), sizes, spherical=spherical)
    found = principal_coordinates(batch, 4).numpy()
    for c, size in enumerate(sizes.tolist()):
        rows = batch.x[c, :size].double().numpy()
        left, values, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
        np.testing.assert_allclose(np.abs(found[c, :size]), np.abs(left[:, :4] * values[:4]), atol=2e-3 * values[0])
        assert not found[c, size:].any()


@pytest.mark.parametrize("engine", ["torch", "sklearn"])
def test_start_from_the_components_finds_what_seedings_do_not(engine):
    """Two Gaussians, 200 rows in 1,280 dimensions: seeded Lloyd stays where it was seeded, at a higher inertia."""
    truth = np.arange(200) % 2
    x = np.random.default_rng(2).standard_normal((200, 1280))
    x[:, 0] += 5 * truth
    found = kmeans(x, 2, engine=engine)
    seeded = KMeans(2, n_init=10, random_state=0).fit(x - x.mean(0))
    assert found.inertia < 0.999 * seeded.inertia_
    assert adjusted_rand_score(truth, found.labels) > 0.6
    assert adjusted_rand_score(truth, seeded.labels_) < 0.4
