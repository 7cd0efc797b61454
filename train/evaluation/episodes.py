"""Few-shot episodes drawn by their number: the classes and pictures of episode i depend on i alone.

The order of the draws is that of the cross-granularity few-shot protocol of SCGM (Ni et al., Superclass-Conditional
Gaussian Mixture Model For Learning Fine-Grained Embeddings, ICLR 2022), so that methods meet the same episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgdemo.errors import UserError

SMALL_QUERIES = 5
"""Queries of each class where some class is too small for more."""


@dataclass(frozen=True)
class EpisodeGroup:
    """G episodes of the same number of ways W, as rows of the labels they were drawn from.

    Attributes:
        number: (G,) int64, which episodes they are.
        support: (G, W, shots) int64 rows.
        query: (G, W, queries) int64 rows.
    """

    number: np.ndarray
    support: np.ndarray
    query: np.ndarray

    @property
    def ways(self) -> int:
        return self.support.shape[1]


@dataclass(frozen=True)
class Episodes:
    """What was drawn, and what could not be.

    Attributes:
        groups: by number of ways, ascending.
        queries: pictures of each class that are asked for, after the fall-back for small classes.
        left_out: fine classes with fewer than shots + queries pictures, ascending ids.
        superclasses_left_out: in intra-class mode, superclasses with fewer than two usable classes, ascending ids.
    """

    groups: tuple[EpisodeGroup, ...]
    queries: int
    left_out: tuple[int, ...]
    superclasses_left_out: tuple[int, ...]


def draw_episodes(
    fine: np.ndarray,
    coarse: np.ndarray,
    *,
    ways: int,
    shots: int,
    queries: int,
    episodes: int,
    intra_class: bool = False,
) -> Episodes:
    """Draw episodes 0..episodes-1 among N pictures.

    Episode i draws from NumPy's legacy generator seeded with i: in intra-class mode one superclass; then `ways` of its
    (else of all) classes, or all of them in ascending order where there are no more; then for each class the support
    and, from the remaining pictures in ascending order, the queries. How the superclass is drawn, beyond uniformly, is
    not published: here `choice` of the ascending ids.

    Where a class has fewer than shots + queries pictures, all classes are asked `SMALL_QUERIES` queries, and classes
    too small even for that are left out.

    Args:
        fine, coarse: (N,) int64 labels of the pictures.
        ways: classes of an episode; 0: all of them.

    Raises:
        UserError: a number out of its range, or fewer than two classes to tell apart.
    """
    if shots < 1 or queries < 1 or episodes < 1:
        raise UserError(f"--shots {shots}, --queries {queries} and --episodes {episodes} must be at least 1.")
    if ways < 0 or ways == 1:
        raise UserError(f"--ways is {ways}; it is 0 for all classes, or at least 2.")
    classes, sizes = np.unique(fine, return_counts=True)
    if sizes.min() < shots + queries:
        queries = min(queries, SMALL_QUERIES)
    usable = sizes >= shots + queries
    left_out = tuple(classes[~usable].tolist())
    members = {c: np.flatnonzero(fine == c) for c in classes[usable].tolist()}
    pools, superclasses_left_out = [np.array(list(members), np.int64)], ()
    if intra_class:
        superclass = np.array([coarse[rows[0]] for rows in members.values()], np.int64)
        pools = [pools[0][superclass == s] for s in np.unique(coarse)]
        superclasses_left_out = tuple(np.unique(coarse)[[len(pool) < 2 for pool in pools]].tolist())
        pools = [pool for pool in pools if len(pool) > 1]
    if not pools or len(pools[0]) < 2:
        where = "No superclass has" if intra_class else "There are not"
        raise UserError(
            f"{where} two classes with {shots + queries} pictures: choose another --split, fewer --shots or --queries."
        )
    # One stream of random numbers makes each episode, so its draws come one after the other.
    drawn: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for number in range(episodes):
        support, query = _draw(np.random.RandomState(number), pools, members, ways, shots, queries, intra_class)
        drawn.setdefault(len(support), []).append((number, support, query))
    groups = []
    for _, parts in sorted(drawn.items()):
        numbers, supports, asked = zip(*parts, strict=True)
        groups.append(EpisodeGroup(np.array(numbers), np.stack(supports), np.stack(asked)))
    return Episodes(tuple(groups), queries, left_out, superclasses_left_out)


def _draw(
    random: np.random.RandomState,
    pools: Sequence[np.ndarray],
    members: dict[int, np.ndarray],
    ways: int,
    shots: int,
    queries: int,
    intra_class: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one episode's support (W, shots) and queries (W, queries)."""
    pool = pools[random.choice(len(pools))] if intra_class else pools[0]
    if 0 < ways < len(pool):
        pool = random.choice(pool, ways, replace=False)
    support, query = [], []
    for rows in (members[c] for c in pool.tolist()):
        shown = random.choice(len(rows), shots, replace=False)
        rest = np.delete(np.arange(len(rows)), shown)
        support.append(rows[shown])
        query.append(rows[random.choice(rest, queries, replace=False)])
    return np.stack(support), np.stack(query)
