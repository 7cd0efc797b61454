"""Episodes against a straight loop over NumPy's global generator, and what is left out where classes are small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fgdemo.errors import UserError
from train.evaluation.episodes import Episodes, draw_episodes

# Ten fine classes in three superclasses of 2, 5 and 3.
COARSE_OF = np.array([0, 1, 1, 2, 1, 0, 2, 1, 2, 1])
PLAIN: dict[str, Any] = {"ways": 3, "shots": 2, "queries": 4, "episodes": 25}


@pytest.fixture
def labels() -> tuple[np.ndarray, np.ndarray]:
    fine = np.repeat(np.arange(10), 12)
    np.random.default_rng(1).shuffle(fine)
    return fine, COARSE_OF[fine]


def flat(found: Episodes) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Support and queries by the episode's number."""
    return {
        int(number): (support, query)
        for group in found.groups
        for number, support, query in zip(group.number, group.support, group.query, strict=True)
    }


@pytest.mark.parametrize("ways", [3, 5, 0, 99])
@pytest.mark.parametrize("intra_class", [False, True])
def test_draws_as_a_straight_loop_over_the_global_generator(
    labels: tuple[np.ndarray, np.ndarray], ways: int, intra_class: bool
) -> None:
    fine, coarse = labels
    found = flat(draw_episodes(fine, coarse, **{**PLAIN, "ways": ways}, intra_class=intra_class))
    assert sorted(found) == list(range(25))
    state = np.random.get_state()
    for i in range(25):
        np.random.seed(i)
        if intra_class:
            chosen = np.random.choice([0, 1, 2])
            classes = [c for c in range(10) if COARSE_OF[c] == chosen]
        else:
            classes = list(range(10))
        if ways and len(classes) > ways:
            classes = np.random.choice(classes, ways, replace=False)
        support, query = [], []
        for c in classes:
            pictures = np.flatnonzero(fine == c)
            positions = np.random.choice(range(12), 2, replace=False)
            others = sorted(set(range(12)) - set(positions))
            support.append(pictures[positions])
            query.append(pictures[np.random.choice(others, 4, replace=False)])
        np.testing.assert_array_equal(found[i][0], support)
        np.testing.assert_array_equal(found[i][1], query)
    np.random.set_state(state)


def test_leaves_the_global_generator_alone(labels: tuple[np.ndarray, np.ndarray]) -> None:
    before = np.random.get_state()[1].copy()
    draw_episodes(*labels, **PLAIN)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_episodes_are_well_formed(labels: tuple[np.ndarray, np.ndarray]) -> None:
    fine, coarse = labels
    found = draw_episodes(fine, coarse, **{**PLAIN, "ways": 4}, intra_class=True)
    assert [group.ways for group in found.groups] == [2, 3, 4]
    for group in found.groups:
        assert group.support.shape == (len(group.number), group.ways, 2)
        assert group.query.shape == (len(group.number), group.ways, 4)
    for support, query in flat(found).values():
        both = np.concatenate([support, query], 1)
        assert len(np.unique(both)) == both.size
        assert (fine[both] == fine[both[:, :1]]).all()
        assert len(np.unique(fine[both[:, 0]])) == len(both)
        assert len(np.unique(coarse[both])) == 1


@pytest.mark.parametrize(
    "change",
    [{"ways": 4}, {"ways": 0}, {"shots": 1}, {"queries": 3}, {"episodes": 24}, {"intra_class": True}],
    ids=lambda change: " ".join(f"{key} {value}" for key, value in change.items()),
)
def test_every_option_changes_the_draw(labels: tuple[np.ndarray, np.ndarray], change: dict[str, Any]) -> None:
    plain, changed = flat(draw_episodes(*labels, **PLAIN)), flat(draw_episodes(*labels, **{**PLAIN, **change}))
    same = len(plain) == len(changed) and all(
        np.array_equal(a, b) for i in plain for a, b in zip(plain[i], changed[i], strict=True)
    )
    assert not same


def test_small_classes_lower_the_queries_of_all() -> None:
    sizes = np.array([20, 16, 15, 6, 5])
    fine = np.repeat(np.arange(5), sizes)
    options = {"ways": 0, "shots": 1, "episodes": 3}
    found = draw_episodes(fine, fine, queries=15, **options)
    # class 2 lacks one picture: 5 queries for everyone, and class 4 cannot even have those
    assert (found.queries, found.left_out) == (5, (4,))
    assert [group.ways for group in found.groups] == [4]
    assert flat(found)[0][1].shape == (4, 5)
    enough = draw_episodes(fine[:36], fine[:36], queries=15, **options)
    assert (enough.queries, enough.left_out) == (15, ())
    # what was asked for is not raised
    few = draw_episodes(fine, fine, queries=3, **options)
    assert (few.queries, few.left_out) == (3, ())


def test_superclasses_with_one_usable_class_are_left_out() -> None:
    fine = np.repeat(np.arange(6), [9, 9, 9, 9, 3, 2])
    coarse = np.array([0, 0, 1, 2, 2, 3])[fine]
    found = draw_episodes(fine, coarse, ways=0, shots=1, queries=5, episodes=10, intra_class=True)
    assert found.left_out == (4, 5)
    assert found.superclasses_left_out == (1, 2, 3)
    assert all((coarse[support] == 0).all() for support, _ in flat(found).values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ways": 1}, "--ways is 1"),
        ({"ways": -2}, "--ways is -2"),
        ({"shots": 0}, "at least 1"),
        ({"queries": 0}, "at least 1"),
        ({"episodes": 0}, "at least 1"),
        ({"shots": 11}, "two classes with 15 pictures"),
    ],
)
def test_refusals(labels: tuple[np.ndarray, np.ndarray], change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_episodes(*labels, **{**PLAIN, **change})


def test_refuses_superclasses_of_one_class_each() -> None:
    fine = np.repeat(np.arange(3), 9)
    with pytest.raises(UserError, match="No superclass has two classes"):
        draw_episodes(fine, fine, ways=0, shots=1, queries=5, episodes=1, intra_class=True)
