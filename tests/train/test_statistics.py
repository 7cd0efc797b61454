"""Intervals against scikit-learn's neighbours in scipy, and against hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from train.statistics import (
    bootstrap_rows,
    paired_difference,
    t_interval,
    two_way_bootstrap,
    two_way_from_replicates,
)


def test_t_interval_equals_scipy() -> None:
    values = [0.71, 0.74, 0.69, 0.75, 0.72]
    interval = t_interval(values)
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx(expected)
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.n == 5


def test_three_seeds_make_a_wide_interval() -> None:
    # 4.303 is the 97.5 % quantile of t with two degrees of freedom
    interval = t_interval([0.0, 1.0, 2.0])
    assert interval.high - interval.mean == pytest.approx(4.302653 / np.sqrt(3))
    assert not interval.excludes_zero


def test_one_seed_says_nothing_of_the_spread() -> None:
    interval = t_interval([0.5])
    assert (interval.low, interval.high) == (None, None)
    assert not interval.excludes_zero


def test_confidence_widens() -> None:
    assert t_interval([1, 2, 3], confidence=0.99).low < t_interval([1, 2, 3]).low


def test_pairing_removes_what_seeds_share() -> None:
    seeds = np.array([0.10, 0.50, 0.90])
    ours = seeds + np.array([0.020, 0.021, 0.019])
    paired = paired_difference(ours, seeds)
    assert paired.excludes_zero
    assert paired.mean == pytest.approx(0.02)
    unpaired = stats.ttest_ind(ours, seeds)
    assert unpaired.pvalue > 0.9


def test_unequal_numbers_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="3 and 2"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="no value"):
        t_interval([])


def test_bootstrap_of_pictures_alone_equals_scipy() -> None:
    """With one seed it is the plain percentile bootstrap."""
    values = np.random.default_rng(0).normal(0.1, 1, 400)
    ours = two_way_bootstrap(values[None], resamples=20_000)
    scipys = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((scipys.low, scipys.high), abs=0.006)
    assert ours.mean == pytest.approx(values.mean())


def test_both_ways_add_their_variances() -> None:
    """Additive seed and picture effects: the variance of the mean is the sum of both parts."""
    generator = np.random.default_rng(1)
    seeds, pictures = generator.normal(0, 1, 40), generator.normal(0, 2, 300)
    interval = two_way_bootstrap(seeds[:, None] + pictures[None], resamples=20_000)
    deviation = np.sqrt(seeds.var() / 40 + pictures.var() / 300)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * deviation, rel=0.04)


def test_bootstrap_follows_its_seed_and_confidence() -> None:
    values = np.random.default_rng(2).normal(size=(3, 50))
    assert two_way_bootstrap(values, resamples=500) == two_way_bootstrap(values, resamples=500)
    assert two_way_bootstrap(values, resamples=500, seed=1) != two_way_bootstrap(values, resamples=500)
    assert two_way_bootstrap(values, resamples=500, confidence=0.5).low > two_way_bootstrap(values, resamples=500).low


def test_replicates_of_a_mean_agree_with_the_direct_bootstrap() -> None:
    """The mean of resampled pictures as replicates gives the interval that pictures themselves give."""
    values = np.random.default_rng(3).normal(0.3, 1, (4, 200))
    rows = [bootstrap_rows(200, r, "a set", "test") for r in range(400)]
    replicates = np.stack([values[:, picked].mean(1) for picked in rows], axis=1)
    direct = two_way_bootstrap(values, resamples=20_000)
    indirect = two_way_from_replicates(replicates, values.mean(), resamples=20_000)
    assert (indirect.low, indirect.high) == pytest.approx((direct.low, direct.high), abs=0.03)
    assert two_way_from_replicates(replicates, 0.3, seed=1) != two_way_from_replicates(replicates, 0.3, seed=2)
    assert two_way_from_replicates(replicates, 0.3, confidence=0.5).high < indirect.high


def test_resamples_are_shared_by_name_alone() -> None:
    assert np.array_equal(bootstrap_rows(50, 3, "scenes", "test"), bootstrap_rows(50, 3, "scenes", "test"))
    assert not np.array_equal(bootstrap_rows(50, 3, "scenes", "test"), bootstrap_rows(50, 4, "scenes", "test"))
    assert not np.array_equal(bootstrap_rows(50, 3, "scenes", "test"), bootstrap_rows(50, 3, "scenes", "val"))
    assert set(bootstrap_rows(50, 0, "x")) <= set(range(50))
