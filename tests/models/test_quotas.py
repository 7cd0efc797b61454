"""Quotas of the blocks: apportionment by hand and by its invariants, and how quotas follow the picks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdemo.errors import UserError
from fgdemo.models.quotas import Quotas, apportion, starting_rates

V_SHAPE = [16, 14, 12, 10, 8, 6, 8, 10, 12, 14, 16]


def apportioned(rates, total, floor=0, cap=1000):
    return apportion(torch.tensor(rates, dtype=torch.float32), total, floor=floor, cap=cap).tolist()


@pytest.mark.parametrize("floor", [0, 1])
def test_published_starts(floor):
    """126 over 11 blocks: the V from 16 to 6 exactly, or 11 each with the five left over going to the first."""
    assert apportion(starting_rates(11, "v"), 126, floor=floor, cap=784).tolist() == V_SHAPE
    assert apportion(starting_rates(11, "uniform"), 126, floor=floor, cap=784).tolist() == [12] * 5 + [11] * 6


def test_starting_rates():
    torch.testing.assert_close(starting_rates(11, "v"), torch.tensor(V_SHAPE) / 126)
    torch.testing.assert_close(starting_rates(5, "v"), torch.tensor([16.0, 11, 6, 11, 16]) / 60)
    assert starting_rates(4, "uniform").tolist() == [0.25] * 4
    assert starting_rates(1, "v").tolist() == [1]


def test_largest_remainders_by_hand():
    assert apportioned([0.5, 0.3, 0.2], 7) == [4, 2, 1]  # 3.5 2.1 1.4
    assert apportioned([0.4, 0.4, 0.2], 4) == [2, 1, 1]  # 1.6 1.6 0.8: the 0.8 first, then the lower of two equals
    assert apportioned([0.25, 0.25, 0.25, 0.25], 6) == [2, 2, 1, 1]
    assert apportioned([1, 2, 1], 8) == [2, 4, 2], "rates need not sum to one"
    assert apportioned([0.1] * 10, 100) == [10] * 10, "a tenth is no binary fraction"


def test_floor_by_hand():
    assert apportioned([1, 0, 0], 12, floor=3) == [6, 3, 3]
    assert apportioned([0.9, 0.1, 0], 9, floor=1) == [6, 2, 1]  # one each, and 5.4 0.6 0 of the other six
    assert apportioned([0.2, 0.8], 2, floor=1) == [1, 1]


def test_cap_by_hand():
    """What a block cannot give goes to the others in proportion, again and again."""
    assert apportioned([0.8, 0.15, 0.05], 20, cap=10) == [10, 8, 2]  # 16 3 1, six over: 4.5 and 1.5
    assert apportioned([0.7, 0.2, 0.1], 20, cap=8) == [8, 8, 4]  # 14 4 2; 8 8 4
    assert apportioned([1, 0, 0], 20, cap=8) == [8, 6, 6], "blocks without a share take alike"
    assert apportioned([1, 0, 0], 24, cap=8) == [8, 8, 8]
    assert apportioned([1, 1e-35, 1e-35], 20, cap=8) == [8, 6, 6], "shares too small to divide by"


@pytest.mark.parametrize(("total", "floor", "cap"), [(2, 1, 10), (31, 0, 10), (11, 4, 10)])
def test_sums_that_cannot_be(total, floor, cap):
    with pytest.raises(UserError, match=f"3 blocks cannot contribute {total} candidates"):
        apportioned([0.2, 0.3, 0.5], total, floor, cap)


@st.composite
def problems(draw):
    rates = draw(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12).filter(lambda r: sum(r) > 1e-3))
    floor = draw(st.integers(0, 3))
    cap = draw(st.integers(max(1, floor), 40))
    total = draw(st.integers(len(rates) * floor, len(rates) * cap))
    return rates, total, floor, cap


@given(problems())
@settings(max_examples=150, deadline=None)
def test_invariants_of_the_apportionment(problem):
    rates, total, floor, cap = problem
    quota = apportioned(*problem)
    assert sum(quota) == total
    assert all(floor <= q <= cap for q in quota)
    for i, rate in enumerate(rates):
        for j, other in enumerate(rates):
            if rate - other > 1e-3 * sum(rates):
                assert quota[i] >= quota[j], "a block with a larger share has at least as many"


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=12).filter(lambda r: sum(r) > 1e-3))
@settings(max_examples=100, deadline=None)
def test_quotas_are_within_one_of_the_exact_shares(rates):
    quota = apportioned(rates, 126)
    for q, rate in zip(quota, rates, strict=True):
        assert abs(q - 126 * rate / sum(rates)) < 1 + 1e-3


@given(problems())
@settings(max_examples=50, deadline=None)
def test_table_lists_every_candidate_once(problem):
    rates, total, floor, cap = problem
    quotas = Quotas(len(rates), total, floor=floor, cap=cap)
    quotas.rates.copy_(torch.tensor(rates) / sum(rates))
    quotas.update(torch.zeros(len(rates)), rate=0.0, after=0)
    block, rank = quotas.table(cap)
    expected = [(b, r) for b, quota in enumerate(quotas.quota.tolist()) for r in range(quota)]
    assert list(zip(block.tolist(), rank.tolist(), strict=True)) == expected
    assert block.dtype == rank.dtype == torch.int64


def test_table_of_fewer_patches_than_a_quota_asks_for():
    quotas = Quotas(3, 20, floor=1, cap=16)
    quotas.rates.copy_(torch.tensor([0.8, 0.1, 0.1]))
    quotas.update(torch.zeros(3), rate=0.0, after=0)
    assert quotas.quota.tolist() == [14, 3, 3]  # one each, and 13.6 1.7 1.7 of the other 17
    block, rank = quotas.table(8)
    assert block.bincount().tolist() == [8, 6, 6]
    assert rank.max() == 7
    assert quotas.table(99)[0].bincount().tolist() == quotas.quota.tolist(), "more patches change nothing"
    with pytest.raises(UserError, match="at most 6"):
        quotas.table(6)


def test_rates_move_only_once_warm():
    """The clock is of optimiser steps: after two of them, the third moves the rates."""
    quotas = Quotas(2, 10, cap=16)
    for step in range(3):
        assert quotas.rates.tolist() == [0.5, 0.5], step
        assert quotas.steps.item() == step
        quotas.update(torch.tensor([8, 0]), rate=0.5, after=2)
    assert quotas.rates.tolist() == [0.75, 0.25]
    assert quotas.quota.tolist() == [7, 3]


def test_moving_average_by_hand():
    quotas = Quotas(3, 12, floor=1, cap=16)
    quotas.update(torch.tensor([6, 3, 1]), rate=0.1, after=0)
    expected = [0.9 / 3 + 0.06, 0.9 / 3 + 0.03, 0.9 / 3 + 0.01]
    torch.testing.assert_close(quotas.rates, torch.tensor(expected))
    quotas.update(torch.tensor([0, 0, 4]), rate=0.1, after=0)
    expected = [0.9 * expected[0], 0.9 * expected[1], 0.9 * expected[2] + 0.1]
    torch.testing.assert_close(quotas.rates, torch.tensor(expected))
    assert quotas.quota.tolist() == [4, 4, 4]  # one each, and 2.916 2.673 3.411 of the other nine
    assert quotas.rates.sum().item() == pytest.approx(1)


def test_a_step_without_picks_moves_nothing():
    quotas = Quotas(3, 12, start="v", cap=16)
    rates, quota = quotas.rates.clone(), quotas.quota.clone()
    quotas.update(torch.zeros(3, dtype=torch.int64), rate=0.5, after=0)
    assert torch.equal(quotas.rates, rates)
    assert torch.equal(quotas.quota, quota)
    assert quotas.steps == 1


@pytest.mark.parametrize("floor", [0, 1])
def test_picks_are_attributed_to_the_blocks_they_came_from(floor):
    """Each of the 126 candidates picked once counts for exactly the quota of its block, so nothing moves.

    The reference's boundaries count 12, 11, 12, 11, 12, ... 6 where each block gave 11.
    """
    quotas = Quotas(11, 126, floor=floor, cap=784)
    block, _ = quotas.table(784)
    picks = block.bincount(minlength=11)
    assert torch.equal(picks, quotas.quota)
    assert picks.sum() == 126


def test_no_block_starves_above_the_floor():
    """A block that loses every vote for a long time keeps its floor, and comes back when it wins."""
    quotas = Quotas(3, 12, floor=1, cap=16)
    for _ in range(400):
        quotas.update(torch.tensor([5, 0, 0]), rate=0.3, after=0)
    assert quotas.quota.tolist() == [10, 1, 1]
    assert quotas.rates.isfinite().all()
    for _ in range(10):
        quotas.update(torch.tensor([0, 5, 0]), rate=0.3, after=0)
    assert quotas.quota[1] > quotas.quota[0]
    starved = Quotas(3, 12, floor=0, cap=16)
    for _ in range(400):
        starved.update(torch.tensor([5, 0, 0]), rate=0.3, after=0)
    assert starved.quota.tolist() == [12, 0, 0]


def test_starved_blocks_still_fill_a_small_picture():
    """Rates that have died away to nothing must not lose candidates."""
    quotas = Quotas(3, 20, floor=0, cap=32)
    for _ in range(200):
        quotas.update(torch.tensor([5, 0, 0]), rate=0.3, after=0)
    assert 0 < quotas.rates[1] < 1e-25
    block, _ = quotas.table(8)
    assert block.bincount(minlength=3).tolist() == [8, 6, 6]


def test_entropy():
    quotas = Quotas(4, 12, floor=0, cap=16)
    assert quotas.entropy().item() == pytest.approx(1)
    quotas.update(torch.tensor([6, 6, 0, 0]), rate=1.0, after=0)
    assert quotas.entropy().item() == pytest.approx(0.5), "two of four"
    quotas.update(torch.tensor([3, 1, 0, 0]), rate=1.0, after=0)
    by_hand = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(4)
    assert quotas.entropy().item() == pytest.approx(by_hand)
    quotas.update(torch.tensor([1, 0, 0, 0]), rate=1.0, after=0)
    assert quotas.entropy().item() == 0
    assert Quotas(1, 12, cap=16).entropy().item() == 1


def test_state_travels_with_the_weights():
    quotas = Quotas(3, 12, cap=16)
    quotas.update(torch.tensor([5, 0, 1]), rate=0.5, after=0)
    again = Quotas(3, 12, cap=16)
    again.load_state_dict(quotas.state_dict())
    assert set(quotas.state_dict()) == {"rates", "quota", "steps"}
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in quotas.state_dict().items())
    again.check()


@pytest.mark.parametrize(
    ("quota", "rates"),
    [([4, 4, 5], [1, 1, 1]), ([14, -1, -1], [1, 1, 1]), ([17, -5, 0], [1, 1, 1]), ([4, 4, 4], [0, 0, 0])],
)
def test_impossible_state_is_refused(quota, rates):
    quotas = Quotas(3, 12, cap=16)
    quotas.load_state_dict(
        {"quota": torch.tensor(quota), "rates": torch.tensor(rates).float(), "steps": torch.tensor(0)}
    )
    with pytest.raises(UserError, match="impossible quotas"):
        quotas.check()
