from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from fgdemo.clustering import batch, classwise_kmeans, classwise_mixtures
from fgdemo.clustering.batch import make_batch
from fgdemo.clustering.em import STARVED, fit, standardise
from fgdemo.errors import UserError

KS = (1, 2, 3, 4)
COVARIANCES = ["diagonal", "spherical"]
WIDTHS = (60, 9, 140, 61, 33)


@pytest.fixture
def classes():
    """Rows of five classes of unequal size, three overlapping stretched groups each, in mixed order."""
    random = np.random.default_rng(7)
    parts = []
    for c, n in enumerate(WIDTHS):
        centers = 2.5 * random.standard_normal((3, 6)) + 10 * c
        spread = random.uniform(0.5, 2, (3, 6))
        groups = np.arange(n) % 3
        parts.append(centers[groups] + spread[groups] * random.standard_normal((n, 6)))
    x = np.concatenate(parts).astype(np.float32)
    y = np.repeat(np.arange(len(WIDTHS)), WIDTHS)
    order = random.permutation(len(x))
    return x[order], y[order]


def expand(found):
    """(C, T, D) variances of either kind."""
    dim = found.means.shape[2]
    return found.variances if found.variances.ndim == 3 else np.repeat(found.variances[..., None], dim, 2)


def log_joint(found, rows, c, k):
    """(n, k) logarithm of weight times density, term by term."""
    b = found.block(k)
    gaps = (rows[:, None].astype(np.float64) - found.means[c, b]) ** 2 / expand(found)[c, b]
    norms = np.log(2 * np.pi * expand(found)[c, b])
    return np.log(found.weights[c, b]) - 0.5 * (gaps + norms).sum(2)


def check(found, x, y, min_size=2):
    """What every result must hold, from its own parameters by the definitions."""
    dim = x.shape[1]
    for c in range(len(found.chosen)):
        rows = x[y == c]
        for m, k in enumerate(found.ks):
            b, labels = found.block(k), found.labels[y == c, m]
            if (len(rows) < k * min_size and k > 1) or not len(rows):
                assert (labels == -1).all()
                for table in (found.weights[c, b], found.means[c, b], found.variances[c, b]):
                    assert np.isnan(table).all()
                assert np.isnan([found.log_likelihood[c, m], found.bic[c, m]]).all()
                continue
            logs = log_joint(found, rows, c, k)
            total = np.logaddexp.reduce(logs, axis=1)
            assert found.log_likelihood[c, m] == pytest.approx(total.sum(), abs=1e-3 * len(rows))
            free = k - 1 + k * dim + k * (dim if found.covariance == "diagonal" else 1)
            expected = 2 * found.log_likelihood[c, m] - free * np.log(len(rows))
            assert found.bic[c, m] == pytest.approx(expected, rel=1e-9)
            posteriors = found.posteriors(rows, np.full(len(rows), c), k)
            np.testing.assert_allclose(posteriors, np.exp(logs - total[:, None]), atol=1e-6)
            np.testing.assert_allclose(posteriors.sum(1), 1, atol=1e-12)
            clear = posteriors.max(1) > 0.501
            np.testing.assert_array_equal(labels[clear], posteriors.argmax(1)[clear])
            assert found.weights[c, b].sum() == pytest.approx(1, abs=1e-5)
            floor = 1e-3 * rows.var(0, dtype=np.float64).mean()
            assert found.variances[c, b].min() >= floor * (1 - 1e-5)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_every_class_under_every_k(classes, covariance):
    x, y = classes
    found = classwise_mixtures(x, y, KS, covariance=covariance)
    assert (found.ks, found.covariance, found.backend) == (KS, covariance, "cpu")
    check(found, x, y)
    np.testing.assert_array_equal(found.chosen, np.array(KS)[np.nanargmax(found.bic, 1)])


def test_one_component_by_hand():
    x = np.array([[1.0, 10.0], [3.0, 10.0], [1.0, 30.0], [3.0, 30.0]])
    diagonal, spherical = (classwise_mixtures(x, np.zeros(4, int), (1,), covariance=c) for c in COVARIANCES)
    for found in (diagonal, spherical):
        np.testing.assert_allclose(found.means, [[[2, 20]]])
        np.testing.assert_array_equal(found.weights, [[1]])
        np.testing.assert_array_equal(found.iterations, [[0]])
        np.testing.assert_array_equal(found.labels, np.zeros((4, 1)))
    np.testing.assert_allclose(diagonal.variances, [[[1, 100]]], rtol=1e-6)
    np.testing.assert_allclose(spherical.variances, [[50.5]], rtol=1e-6)
    # -n/2 (D log 2 pi + sum of log variances + D), as the variances are those of the rows
    by_hand = -2 * (2 * np.log(2 * np.pi) + np.log(100) + 2)
    assert diagonal.log_likelihood[0, 0] == pytest.approx(by_hand, rel=1e-6)
    assert diagonal.bic[0, 0] == pytest.approx(2 * by_hand - 4 * np.log(4), rel=1e-6)
    by_hand = -2 * (2 * np.log(2 * np.pi) + 2 * np.log(50.5) + 2)
    assert spherical.log_likelihood[0, 0] == pytest.approx(by_hand, rel=1e-6)
    assert spherical.bic[0, 0] == pytest.approx(2 * by_hand - 3 * np.log(4), rel=1e-6)


@pytest.mark.parametrize(("covariance", "theirs"), [("diagonal", "diag"), ("spherical", "spherical")])
@pytest.mark.parametrize("max_iter", [1, 5])
def test_equals_scikit_learn_from_the_same_start(classes, covariance, theirs, max_iter):
    x, y = classes
    start = classwise_kmeans(x, y, KS, select="bic")
    found = classwise_mixtures(x, y, KS, covariance=covariance, max_iter=max_iter, tol=0, floor=1e-6)
    compared = 0
    for c in range(len(WIDTHS)):
        rows = x[y == c].astype(np.float64)
        for m, k in enumerate(KS):
            labels = start.labels[y == c, m]
            if labels[0] < 0 or np.bincount(labels).min() < 2:
                continue
            means = np.stack([rows[labels == j].mean(0) for j in range(k)])
            variances = np.stack([rows[labels == j].var(0) for j in range(k)])
            model = GaussianMixture(
                k,
                covariance_type=theirs,
                reg_covar=0,
                tol=0,
                max_iter=max_iter,
                weights_init=np.bincount(labels) / len(rows),
                means_init=means,
                precisions_init=1 / (variances if theirs == "diag" else variances.mean(1)),
            )
            with pytest.warns(UserWarning, match="did not converge"):
                model.fit(rows)
            b = found.block(k)
            assert found.log_likelihood[c, m] == pytest.approx(model.score(rows) * len(rows), rel=1e-5)
            assert found.bic[c, m] == pytest.approx(-model.bic(rows), rel=1e-5)
            np.testing.assert_allclose(found.weights[c, b], model.weights_, rtol=1e-3)
            np.testing.assert_allclose(found.means[c, b], model.means_, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(found.variances[c, b], model.covariances_, rtol=1e-3)
            np.testing.assert_allclose(
                found.posteriors(rows, np.full(len(rows), c), k), model.predict_proba(rows), atol=2e-3
            )
            compared += 1
    assert compared >= 17


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("floor", [1e-6, 0.5])
def test_likelihood_never_falls(classes, covariance, floor):
    x, y = classes
    steps = [classwise_mixtures(x, y, KS, covariance=covariance, max_iter=i, tol=0, floor=floor) for i in range(1, 16)]
    likelihood = np.stack([s.log_likelihood for s in steps])
    known = np.isfinite(likelihood[0])
    rises = np.diff(likelihood, axis=0)[:, known]
    assert (rises >= -1e-6 * np.abs(likelihood[0][known])).all()
    assert rises.max() > 0.1


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_class_does_not_depend_on_the_others(classes, covariance):
    x, y = classes
    together = classwise_mixtures(x, y, KS, covariance=covariance)
    assert len(np.unique(together.iterations)) > 4, "the problems should end at different times"
    for c in range(len(WIDTHS)):
        mine = y == c
        alone = classwise_mixtures(x[mine], y[mine], KS, covariance=covariance)
        np.testing.assert_array_equal(together.labels[mine], alone.labels)
        np.testing.assert_array_equal(together.iterations[c], alone.iterations[c])
        np.testing.assert_allclose(together.log_likelihood[c], alone.log_likelihood[c], rtol=1e-6)
        np.testing.assert_allclose(together.means[c], alone.means[c], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(together.variances[c], alone.variances[c], rtol=1e-4)


@pytest.mark.parametrize("diagonal", [True, False])
def test_a_problem_is_frozen_where_it_stops(diagonal):
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 40, 4)) ** 3)
    rows, _ = standardise(make_batch(x, torch.full((5,), 40)))
    ks = (2, 3, 5)
    start = torch.stack([torch.arange(40) % k for k in ks]).expand(5, 3, 40)
    options = {"diagonal": diagonal, "floor": 1e-3, "tol": 0.02, "max_iter": 100}
    together = fit(rows, start, ks, torch.ones(5, 3, dtype=torch.bool), **options)
    assert len(together.iterations.unique()) > 5
    column = 0
    for m, k in enumerate(ks):
        for c in range(5):
            one = torch.tensor([c])
            alone = fit(rows.take(one), start[one, m : m + 1], (k,), torch.ones(1, 1, dtype=torch.bool), **options)
            assert int(together.iterations[c, m]) == int(alone.iterations)
            assert float(together.likelihood[c, m]) == pytest.approx(float(alone.likelihood), abs=1e-3)
            whole = together.components.take(one)
            for mine, part in (
                (whole.weights, alone.components.weights),
                (whole.means, alone.components.means),
                (whole.variances, alone.components.variances),
            ):
                torch.testing.assert_close(mine[:, column : column + k], part, rtol=1e-3, atol=1e-3)
        column += k


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_small_blocks_of_rows_give_the_same(classes, covariance, monkeypatch):
    x, y = classes
    whole = classwise_mixtures(x, y, KS, covariance=covariance)
    monkeypatch.setattr(batch, "BLOCK_VALUES", 256)
    parts = classwise_mixtures(x, y, KS, covariance=covariance)
    np.testing.assert_array_equal(whole.labels, parts.labels)
    np.testing.assert_array_equal(whole.iterations, parts.iterations)
    np.testing.assert_allclose(whole.log_likelihood, parts.log_likelihood, rtol=1e-6)
    np.testing.assert_allclose(whole.variances, parts.variances, rtol=1e-3)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_bic_finds_separated_blobs(blobs, covariance, k):
    parts = [blobs(160, 8, k, 16, seed)[0] for seed in range(3)]
    found = classwise_mixtures(np.concatenate(parts), np.repeat(np.arange(3), 160), range(1, 7), covariance=covariance)
    assert found.chosen.tolist() == [k] * 3


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_translation_and_scale_change_nothing(classes, covariance):
    x, y = classes
    x = x.astype(np.float64)
    at_home = classwise_mixtures(x, y, KS, covariance=covariance)
    away = classwise_mixtures(x * 8 + 1e6, y, KS, covariance=covariance)
    np.testing.assert_array_equal(at_home.labels, away.labels)
    np.testing.assert_allclose(away.means, at_home.means * 8 + 1e6, rtol=0, atol=1e-3)
    np.testing.assert_allclose(away.variances, at_home.variances * 64, rtol=1e-3)
    shift = np.bincount(y)[:, None] * x.shape[1] * np.log(8)
    np.testing.assert_allclose(away.log_likelihood, at_home.log_likelihood - shift, rtol=1e-5)
    np.testing.assert_allclose(
        away.posteriors(x * 8 + 1e6, y, 2), at_home.posteriors(x, y, 2), atol=1e-3, equal_nan=True
    )


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_tight_clusters_keep_their_variance(covariance):
    random = np.random.default_rng(0)
    noise = random.standard_normal((80, 5)) * 1e-4
    x = noise + np.repeat(np.eye(5)[:2], 40, 0)
    found = classwise_mixtures(x, np.zeros(80, int), (2,), covariance=covariance, floor=1e-10, select=2)
    order = np.argsort(-found.means[0, :, 0])
    spread = np.stack([x[:40].var(0), x[40:].var(0)])
    expected = spread if covariance == "diagonal" else spread.mean(1)
    np.testing.assert_allclose(found.variances[0, order], expected, rtol=1e-3)
    np.testing.assert_allclose(found.weights[0], 0.5, rtol=1e-5)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_degenerate_rows_stay_finite(covariance):
    random = np.random.default_rng(1)
    constant = random.standard_normal((40, 4))
    constant[:, 2] = 5
    classes = [
        np.ones((20, 4)),  # equal rows
        np.repeat(random.standard_normal((3, 4)), 10, 0),  # three distinct rows
        constant,
        np.concatenate([random.standard_normal((30, 4)), [[1e6, 0, 0, 0]]]),  # an outlier
        random.standard_normal((1, 4)),
        random.standard_normal((30, 4)) * 1e-12,
        random.standard_normal((30, 4)) * 1e12,
    ]
    x = np.concatenate(classes)
    y = np.repeat(np.arange(7), [len(rows) for rows in classes])
    found = classwise_mixtures(x, y, KS, covariance=covariance)
    np.testing.assert_array_equal(
        np.isfinite(found.bic), [[1, 0, 0, 0], [1, 1, 1, 0], [1] * 4, [1] * 4, [1, 0, 0, 0], [1] * 4, [1] * 4]
    )
    for m, k in enumerate(KS):
        known = np.isfinite(found.bic[:, m])
        for table in (found.weights, found.means, found.variances):
            assert np.isfinite(table[known, found.block(k)]).all()
        assert (found.variances[known, found.block(k)] > 0).all()
        posteriors = found.posteriors(x, y, k)
        np.testing.assert_array_equal(np.isfinite(posteriors).all(1), known[y])
        np.testing.assert_allclose(posteriors[known[y]].sum(1), 1)
    assert found.chosen[[0, 1, 4]].tolist() == [1, 3, 1]


def test_a_component_without_rows_keeps_a_floor_of_weight(blobs):
    x, _ = blobs(50, 4, 1, 0)
    rows, _ = standardise(make_batch(torch.from_numpy(x)[None], torch.tensor([50])))
    start = torch.zeros(1, 1, 50, dtype=torch.int64)
    admissible = torch.ones(1, 1, dtype=torch.bool)
    options = {"diagonal": True, "floor": 1e-3, "tol": 0.0}
    steps = [fit(rows, start, (2,), admissible, max_iter=i, **options) for i in (1, 2, 5, 50)]
    for found in steps:
        weights = found.components.weights
        assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
        assert float(weights.min()) >= STARVED / 50 * (1 - 1e-6)
        # where nothing was known: the mean and the variance of the class
        assert float(found.components.means[0, 1].abs().max()) < 0.5
        assert float(found.components.variances[0, 1].min()) > 0.1
    likelihood = [float(found.likelihood) for found in steps]
    assert (np.diff(likelihood) >= -1e-4).all()


def test_small_and_empty_classes():
    x = np.random.default_rng(0).standard_normal((22, 3))
    y = np.repeat([0, 2, 3], [18, 3, 1])
    found = classwise_mixtures(x, y, (2, 5), select=2)
    check(found, x, y)
    assert found.chosen.tolist() == [2, 0, 1, 1]
    assert np.isnan(found.posteriors(x, y, 5)[18:]).all()
    assert np.isfinite(found.posteriors(x, y, 5)[:18]).all()


def test_default_candidates_follow_the_largest_class(blobs):
    x, _ = blobs(60, 5, 2, 8)
    assert classwise_mixtures(x, np.zeros(60, int)).ks == tuple(range(1, 13))
    assert classwise_mixtures(x[:9], np.zeros(9, int)).ks == (1, 2, 3, 4)


def test_posteriors_of_other_rows(classes):
    x, y = classes
    found = classwise_mixtures(x, y, KS)
    others = np.random.default_rng(3).standard_normal((6, 6)) * 3 + 10
    mixed = found.posteriors(np.repeat(others, 2, 0), np.tile([1, 3], 6), 3)
    for position, c in enumerate((1, 3)):
        logs = log_joint(found, others, c, 3)
        expected = np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))
        np.testing.assert_allclose(mixed[position::2], expected, atol=1e-9)


@pytest.mark.parametrize(
    "option",
    [
        {"covariance": "spherical"},
        {"seed": 5},
        {"restarts": 9},
        {"max_iter": 2},
        {"tol": 0.5},
        {"floor": 0.8},
        {"max_k": 3},
        {"min_size": 12},
        {"select": 2},
    ],
    ids=lambda option: next(iter(option)),
)
def test_every_option_matters(classes, option):
    x, y = classes
    plain, same, other = (
        classwise_mixtures(x, y, **o) for o in ({"restarts": 1}, {"restarts": 1}, {"restarts": 1, **option})
    )

    def differ(a, b):
        return (
            a.ks != b.ks
            or not np.array_equal(a.chosen, b.chosen)
            or not np.allclose(a.log_likelihood, b.log_likelihood, rtol=1e-5, equal_nan=True)
        )

    assert not differ(plain, same)
    assert differ(plain, other)


def test_bad_input_is_refused(classes):
    x, y = classes
    for options, message in (
        ({"labels": y[:-1]}, "one label a row"),
        ({"labels": y - 1}, "at least 0"),
        ({"ks": (2, 141)}, "from 1 to 140"),
        ({"ks": ()}, "ks is empty"),
        ({"covariance": "full"}, "choose one of diagonal, spherical"),
        ({"select": "silhouette"}, "choose one of bic"),
        ({"select": 5}, "from 1 to 4"),
        ({"seed": -1}, "seed"),
        ({"restarts": 0}, "restarts"),
        ({"max_iter": 0}, "max_iter"),
        ({"tol": -1e-3}, "tol must be a number from 0"),
        ({"tol": float("nan")}, "tol must be a number from 0"),
        ({"floor": 0}, "floor must be a number from 1e-10 to 1"),
        ({"floor": "small"}, "floor must be a number from 1e-10 to 1"),
        ({"max_k": 0}, "max_k"),
        ({"min_size": 0}, "min_size"),
    ):
        with pytest.raises(UserError, match=message) as refusal:
            classwise_mixtures(x, **{"labels": y, "ks": KS, **options})
        assert str(refusal.value).count(". ") == 0
    found = classwise_mixtures(x, y, (1, 2))
    with pytest.raises(UserError, match="of 6 dimensions, the rows of 5"):
        found.posteriors(x[:, :5], y, 2)
    with pytest.raises(UserError, match="5 classes, but a row has label 5"):
        found.posteriors(x, y + 1, 2)
    with pytest.raises(UserError, match="one of the candidates 1, 2, not 3"):
        found.posteriors(x, y, 3)
    x = x.copy()
    x[17, 3] = np.nan
    with pytest.raises(UserError, match="Row 17"):
        classwise_mixtures(x, y, KS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(classes):
    x, y = classes
    there, here = (classwise_mixtures(rows, y, KS) for rows in (torch.from_numpy(x).cuda(), x))
    assert there.backend == "cuda"
    np.testing.assert_allclose(there.log_likelihood, here.log_likelihood, rtol=1e-3)
    np.testing.assert_allclose(there.posteriors(x, y, 2), there.posteriors(torch.from_numpy(x).cuda(), y, 2), atol=1e-6)
