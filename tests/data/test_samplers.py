from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdemo.data.samplers import EpochSampler, shard_rows
from fgdemo.errors import UserError


@st.composite
def setups(draw):
    batch, world = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    return draw(st.integers(batch * world, 80)), batch, world, draw(st.integers(0, 5)), draw(st.integers(0, 9))


def all_ranks(n, batch, world, seed, epoch):
    samplers = [EpochSampler(n, batch, seed=seed, rank=r, world=world) for r in range(world)]
    return [list(s.epoch(epoch)) for s in samplers]


@given(setups())
@settings(max_examples=60)
def test_each_row_at_most_once_and_equal_shares(setup):
    n, batch, world, _, epoch = setup
    ranks = all_ranks(*setup)
    rows = [row for rank in ranks for b in rank for row, _ in b]
    assert len(rows) == len(set(rows)) == n - n % (batch * world)
    assert set(rows) <= set(range(n))
    assert {len(rank) for rank in ranks} == {n // (batch * world)}
    assert {len(b) for rank in ranks for b in rank} == {batch}
    assert {e for rank in ranks for b in rank for _, e in b} == {epoch}


@given(setups())
@settings(max_examples=40)
def test_global_batches_do_not_depend_on_the_number_of_processes(setup):
    n, batch, world, seed, epoch = setup
    alone = list(EpochSampler(n, batch * world, seed=seed).epoch(epoch))
    shared = all_ranks(*setup)
    together = [[pair for rank in step for pair in rank] for step in zip(*shared, strict=True)]
    assert together == alone


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (103, 20), (12, 4), (7, 5)])
def test_every_row_is_left_out_equally_often(n, batch):
    left = np.zeros(n, dtype=int)
    for epoch in range(n):
        seen = [row for b in EpochSampler(n, batch, seed=3).epoch(epoch) for row, _ in b]
        left += 1 - np.bincount(seen, minlength=n)
    assert left.tolist() == [n % batch] * n


def test_rows_left_out_by_successive_epochs_differ_while_possible():
    sampler = EpochSampler(103, 20, seed=0)
    left = [set(range(103)) - {r for b in sampler.epoch(e) for r, _ in b} for e in range(34)]
    assert sum(map(len, left)) == len(set.union(*left)) == 102


def test_resume_continues_the_epoch():
    sampler = EpochSampler(50, 8, seed=1)
    assert list(sampler.epoch(4, start_batch=3)) == list(sampler.epoch(4))[3:]
    assert list(sampler.epoch(4, start_batch=sampler.batches_per_epoch)) == []


def test_order_changes_with_epoch_and_seed():
    orders = [list(EpochSampler(64, 8, seed=s).epoch(e)) for s in (0, 1) for e in (0, 1)]
    rows = [tuple(r for b in order for r, _ in b) for order in orders]
    assert len(set(rows)) == 4


def test_too_few_rows_name_the_numbers_and_the_remedy():
    with pytest.raises(UserError, match=r"7 training pictures .* 4 x 2 processes: use --batch-size 3 "):
        EpochSampler(7, 4, seed=0, world=2)
    with pytest.raises(UserError, match="at most 2 processes"):
        EpochSampler(2, 4, seed=0, world=3)
    with pytest.raises(UserError, match="--batch-size"):
        EpochSampler(7, 0, seed=0)


@given(st.integers(0, 50), st.integers(1, 8))
def test_evaluation_shards_cover_each_row_once(n, world):
    shards = [shard_rows(n, r, world) for r in range(world)]
    assert np.concatenate(shards).tolist() == list(range(n))
    sizes = [len(s) for s in shards]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("rank", [-1, 2])
def test_impossible_rank(rank):
    with pytest.raises(ValueError, match="rank"):
        shard_rows(5, rank, 2)
    with pytest.raises(ValueError, match="rank"):
        EpochSampler(5, 1, seed=0, rank=rank, world=2)
