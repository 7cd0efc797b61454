from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fgdemo.data.splits import hold_out, stratified_holdout
from fgdemo.errors import UserError

LABELS = st.lists(st.integers(0, 6), max_size=60).map(np.array)


@given(LABELS, st.floats(0, 0.99), st.integers(0, 3))
@example(np.array([0, 1, 1, 1, 1, 2]), 0.5, 0)
def test_shares_are_proportional_and_no_class_is_emptied(labels, fraction, seed):
    held = stratified_holdout(labels, fraction, seed=seed)
    assert held.dtype == bool
    assert held.shape == labels.shape
    sizes = np.bincount(labels.astype(int), minlength=7)
    taken = np.bincount(labels[held].astype(int), minlength=7)
    possible = np.maximum(sizes - 1, 0)
    assert (taken <= possible).all()
    expected = np.minimum(fraction * sizes, possible)
    assert (taken >= np.floor(expected)).all()
    assert (taken <= np.ceil(fraction * sizes)).all()
    assert held.sum() <= round(fraction * len(labels))


def test_total_is_exact_when_classes_allow():
    labels = np.repeat(np.arange(9), [11, 12, 13, 14, 15, 16, 17, 18, 19])
    assert stratified_holdout(labels, 0.1, seed=0).sum() == round(13.5)
    assert stratified_holdout(labels, 0.5, seed=0).sum() == round(67.5)


def test_seed_decides_and_repeats():
    labels = np.repeat(np.arange(5), 20)
    a, b, c = (stratified_holdout(labels, 0.2, seed=s) for s in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_every_row_of_a_class_is_drawn_equally_often():
    labels = np.repeat([0, 1], [4, 8])
    counts = sum(stratified_holdout(labels, 0.25, seed=s).astype(int) for s in range(800))
    assert np.abs(counts - 200).max() < 6 * np.sqrt(800 * 0.25 * 0.75)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2, float("nan")])
def test_impossible_fraction(fraction):
    with pytest.raises(UserError, match="fraction"):
        stratified_holdout(np.zeros(4, dtype=int), fraction, seed=0)


def test_hold_out_touches_training_rows_only():
    split = np.array(["train"] * 20 + ["test"] * 20)
    new = hold_out(split, np.zeros(40, dtype=int), "val", 0.25, seed=0)
    assert (new[20:] == "test").all()
    assert (new[:20] == "val").sum() == 5
    assert (split[:20] == "train").all()
