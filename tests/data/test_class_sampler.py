"""P x K batches: what every micro-batch holds, what comes equally often, and what the pairs depend on."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdemo.data import ClassBalancedSampler, EpochSampler
from fgdemo.errors import UserError


@st.composite
def setups(draw):
    """Targets in any order, and the options of a sampler that they allow."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=2, max_size=7))
    per_class = draw(st.integers(2, 5))
    micro_batch = per_class * draw(st.integers(2, len(sizes)))
    batch_size = micro_batch * draw(st.integers(1, 3))
    world = draw(st.integers(1, 3))
    # Classes are not numbered from 0 without gaps. The first is large enough to fill a global batch.
    sizes[0] += max(0, batch_size * world - sum(sizes))
    targets = np.repeat(3 * np.arange(len(sizes), dtype=np.int64) + 2, sizes)
    targets = np.random.default_rng(draw(st.integers(0, 99))).permutation(targets)
    options = {"per_class": per_class, "micro_batch": micro_batch, "seed": draw(st.integers(0, 5)), "world": world}
    return targets, batch_size, options


def global_batches(targets, batch_size, options, epoch):
    """(batches, rows, 2) the pairs of all ranks, in the order of ranks."""
    samplers = [ClassBalancedSampler(targets, batch_size, rank=r, **options) for r in range(options["world"])]
    return np.concatenate([np.array(list(s.epoch(epoch))) for s in samplers], axis=1)


@given(setups(), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_every_micro_batch_has_k_rows_of_different_classes(setup, epoch):
    targets, batch_size, options = setup
    per_class, micro_batch = options["per_class"], options["micro_batch"]
    batches = global_batches(*setup, epoch)
    assert batches.shape == (len(targets) // (batch_size * options["world"]), batch_size * options["world"], 2)
    sizes = Counter(targets.tolist())
    for rows in batches[..., 0].reshape(-1, micro_batch):
        classes = Counter(targets[rows].tolist())
        assert len(classes) == micro_batch // per_class >= 2
        assert set(classes.values()) == {per_class}
        for row, times in Counter(rows.tolist()).items():
            assert times <= -(-per_class // sizes[targets[row]])


@given(setups())
@settings(max_examples=50, deadline=None)
def test_classes_come_equally_often_and_within_a_class_all_rows_before_any_again(setup):
    targets, _, options = setup
    seen = np.zeros(len(targets), dtype=int)
    turns = Counter(dict.fromkeys(targets.tolist(), 0))
    for epoch in range(6):
        of_epoch = Counter(dict.fromkeys(targets.tolist(), 0))
        for row, before in global_batches(*setup, epoch).reshape(-1, 2).tolist():
            assert before == seen[row] == seen[targets == targets[row]].min()
            seen[row] += 1
            of_epoch[int(targets[row])] += 1
        turns += of_epoch
        for counts in (of_epoch, turns):
            assert max(counts.values()) - min(counts.values()) in (0, options["per_class"])


@given(setups(), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_resume_continues_the_epoch(setup, epoch):
    targets, batch_size, options = setup
    sampler = ClassBalancedSampler(targets, batch_size, rank=options["world"] - 1, **options)
    whole = list(sampler.epoch(epoch))
    assert len(whole) == sampler.batches_per_epoch
    for start in range(len(whole) + 1):
        assert list(sampler.epoch(epoch, start_batch=start)) == whole[start:]


@pytest.mark.parametrize("epoch", [0, 3])
def test_global_batches_do_not_depend_on_the_number_of_processes(epoch):
    targets = np.arange(203) % 9
    shared = [
        global_batches(targets, 64 // world, {"per_class": 4, "micro_batch": 16, "seed": 1, "world": world}, epoch)
        for world in (1, 2, 4)
    ]
    assert shared[0].shape == (3, 64, 2)
    assert np.array_equal(shared[0], shared[1])
    assert np.array_equal(shared[0], shared[2])


def test_accumulation_only_groups_the_micro_batches():
    """A batch of four micro-batches is four batches of one: mining sees the same pictures."""
    targets = np.arange(160) % 10
    alone = ClassBalancedSampler(targets, 8, per_class=2, seed=0)
    grouped = ClassBalancedSampler(targets, 32, per_class=2, seed=0, micro_batch=8)
    pairs = [np.array(list(sampler.epoch(2))).reshape(20, 8, 2) for sampler in (alone, grouped)]
    assert np.array_equal(*pairs)
    whole = ClassBalancedSampler(targets, 20, per_class=2, seed=0)
    assert {len(set(targets[[row for row, _ in batch]])) for batch in whole.epoch(0)} == {10}


def test_pairs_depend_on_seed_and_epoch_alone():
    targets = np.arange(60) % 6

    def pairs(seed, epoch):
        return tuple(map(tuple, ClassBalancedSampler(targets, 12, per_class=3, seed=seed).epoch(epoch)))

    drawn = {(seed, epoch): pairs(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(drawn.values())) == 4
    sampler = ClassBalancedSampler(targets, 12, per_class=3, seed=1)
    for epoch in (1, 0, 1):
        assert tuple(map(tuple, sampler.epoch(epoch))) == drawn[1, epoch]


def test_the_seed_decides_the_order_of_classes_and_of_the_rows_of_a_class():
    orders = []
    for seed in (0, 1):
        batches = ClassBalancedSampler(np.arange(60) % 6, 12, per_class=3, seed=seed).epoch(0)
        rows = [row for batch in batches for row, _ in batch]
        orders.append(([row % 6 for row in rows], [row for row in rows if row % 6 == 0][:9]))
    assert orders[0][0] != orders[1][0]
    assert orders[0][1] != orders[1][1]


def test_per_class_and_micro_batch_change_the_batches():
    targets = np.arange(96) % 8
    for options, expected in (({"per_class": 2}, 8), ({"per_class": 4}, 4), ({"per_class": 4, "micro_batch": 8}, 2)):
        sampler = ClassBalancedSampler(targets, 16, seed=0, **options)
        rows = [row for row, _ in next(sampler.epoch(0))][: sampler.micro_batch]
        assert len(set(targets[rows])) == expected


@pytest.mark.parametrize(("size", "per_class"), [(7, 3), (8, 4), (5, 4), (20, 4)])
def test_every_two_rows_of_a_class_meet_as_often_as_chance_has_it(size, per_class):
    """No pictures keep their company from one pass to the next, where passes end with a group or within one."""
    targets = np.repeat([0, 1], size)
    sampler = ClassBalancedSampler(targets, 2 * per_class, per_class=per_class, seed=0)
    met, epochs = Counter(), 1500
    for epoch in range(epochs):
        for batch in sampler.epoch(epoch):
            rows = sorted(row for row, _ in batch)
            met.update(combinations(rows[:per_class], 2))
    turns = epochs * sampler.batches_per_epoch
    expected = turns * per_class * (per_class - 1) / (size * (size - 1))
    assert len(met) == size * (size - 1) // 2
    assert min(met.values()) > 0.7 * expected
    assert max(met.values()) < 1.3 * expected


def test_rows_keep_no_company_from_one_pass_to_the_next():
    """Four rows a group and 41 a class: three of ten pairs would meet again if a pass only shifted the groups."""
    sampler = ClassBalancedSampler(np.repeat([0, 1], 41), 8, per_class=4, seed=0)
    passes = [set() for _ in range(100)]
    for epoch in range(100):
        for batch in sampler.epoch(epoch):
            group = sorted((row, number) for row, number in batch if row < 41)
            for (a, number), (b, other) in combinations(group, 2):
                if number == other < 100:
                    passes[number].add((a, b))
    again = sum(len(a & b) for a, b in pairwise(passes[:90])) / sum(map(len, passes[:90]))
    chance = 3 / 40
    assert again < 2 * chance


@pytest.mark.parametrize(("classes", "together"), [(5, 2), (6, 3), (5, 4)])
def test_every_two_classes_meet(classes, together):
    sampler = ClassBalancedSampler(np.arange(20 * classes) % classes, 2 * together, per_class=2, seed=0)
    met = Counter()
    for epoch in range(20):
        for batch in sampler.epoch(epoch):
            met.update(combinations(sorted({row % classes for row, _ in batch}), 2))
    assert len(met) == classes * (classes - 1) // 2
    assert max(met.values()) < 1.5 * min(met.values())


def test_a_class_of_one_picture_repeats_it_with_other_draws():
    targets = np.array([0] + [1] * 30)
    pairs = [
        pair for e in range(3) for b in ClassBalancedSampler(targets, 8, per_class=4, seed=0).epoch(e) for pair in b
    ]
    alone = [number for row, number in pairs if row == 0]
    assert alone == list(range(3 * 3 * 4))
    assert len(set(pairs)) == len(pairs)


def test_long_tail_balances_classes_within_an_ordinary_number_of_batches():
    targets = np.repeat(np.arange(4), [100, 40, 15, 5])
    sampler = ClassBalancedSampler(targets, 16, per_class=4, seed=0)
    assert sampler.batches_per_epoch == EpochSampler(160, 16, seed=0).batches_per_epoch == 10
    rows = [row for batch in sampler.epoch(0) for row, _ in batch]
    assert np.bincount(targets[rows]).tolist() == [40] * 4
    # Of the largest class 40 rows once, of the smallest each 8 times.
    assert np.bincount(rows, minlength=160)[:100].max() == 1
    assert set(np.bincount(rows, minlength=160)[155:]) == {8}


@pytest.mark.parametrize(
    ("targets", "batch_size", "options", "message"),
    [
        (np.arange(40) % 4, 8, {"per_class": 1}, "at least 2 pictures of each class, not 1"),
        (np.arange(40) % 4, 10, {"per_class": 4}, "10 is no multiple of the 4 .*--batch-size 8"),
        (np.arange(40) % 4, 3, {"per_class": 2}, "3 is no multiple of the 2 .*--batch-size 4"),
        (np.arange(40) % 4, 4, {"per_class": 4}, "holds 1 classes and must hold 2 to 4: use --batch-size 8 to 16"),
        (np.arange(40) % 4, 20, {"per_class": 4}, "holds 5 classes"),
        (np.arange(40) % 4, 16, {"per_class": 4, "micro_batch": 4}, "holds 1 classes"),
        (np.zeros(40, int), 8, {"per_class": 4}, "at least two classes"),
        (np.arange(40) % 4, 16, {"per_class": 4, "world": 3}, "40 training pictures do not fill one batch"),
    ],
)
def test_refusals_name_the_remedy(targets, batch_size, options, message):
    with pytest.raises(UserError, match=message):
        ClassBalancedSampler(targets, batch_size, seed=0, **options)


@pytest.mark.parametrize("micro_batch", [0, 12])
def test_batches_that_micro_batches_do_not_fill(micro_batch):
    with pytest.raises(ValueError, match="micro-batches"):
        ClassBalancedSampler(np.arange(40) % 4, 16, per_class=2, seed=0, micro_batch=micro_batch)
