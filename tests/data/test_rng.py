from __future__ import annotations

import random
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fgdemo.data.rng import keyed_permutation, keyed_random, keyed_seed

PARTS = st.lists(st.one_of(st.integers(), st.text(max_size=6)), max_size=4)


def draw() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))


def test_seed_is_the_same_on_every_machine():
    assert keyed_seed("augment", 0, 1, 2) == 5451431743063103022
    assert keyed_seed("augment", np.int64(0), 1, np.int32(2)) == 5451431743063103022
    assert keyed_permutation(6, "x", 1).tolist() == [3, 4, 5, 2, 0, 1]


@given(PARTS, PARTS)
def test_different_keys_give_different_seeds(a, b):
    same = [(type(x), x) for x in a] == [(type(x), x) for x in b]
    assert (keyed_seed(*a) == keyed_seed(*b)) == same
    assert 0 <= keyed_seed(*a) < 2**64


@pytest.mark.parametrize("part", [1.0, None, b"x"])
def test_other_types_are_refused(part):
    with pytest.raises(TypeError):
        keyed_seed(part)


@given(st.integers(0, 300), st.integers())
def test_permutation(n, seed):
    order = keyed_permutation(n, seed)
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(order, keyed_permutation(n, seed))


def test_permutations_are_uniform():
    places = np.array([keyed_permutation(5, "u", i) for i in range(2000)])
    counts = np.array([np.bincount(column, minlength=5) for column in places.T])
    assert np.abs(counts - 400).max() < 6 * np.sqrt(2000 * 0.2 * 0.8)


@pytest.mark.parametrize("seed", [0, 5, 2**63, 2**64 - 1])
def test_block_is_repeatable_and_leaves_no_trace(seed):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    random.gauss(0, 1)
    undisturbed = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    with keyed_random(seed):
        first = draw()
    with keyed_random(seed):
        assert draw() == first
    with suppress(KeyError), keyed_random(seed):
        draw()
        raise KeyError
    assert random.getstate() == undisturbed[0]
    after = np.random.get_state()
    assert np.array_equal(after[1], undisturbed[1][1])
    assert after[2:] == undisturbed[1][2:]
    assert torch.equal(torch.get_rng_state(), undisturbed[2])


def test_all_64_bits_of_the_seed_count_for_random_and_numpy():
    with keyed_random(1):
        low = draw()
    with keyed_random(1 + (1 << 32)):
        high = draw()
    assert all(a != b for a, b in zip(low[:3], high[:3], strict=True))
