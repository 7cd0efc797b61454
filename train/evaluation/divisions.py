"""Divisions of coarse classes into clusters, learned on training pictures, judged on held-out ones by fine labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fgdemo.clustering import classwise_kmeans, cluster
from fgdemo.clustering.neighbours import nearest_rows
from fgdemo.clustering.quality import ami, ari, hungarian_accuracy
from fgdemo.data import keyed_permutation
from fgdemo.errors import UserError
from train.evaluation.controls import Features
from train.statistics import REPLICATES, bootstrap_rows

SHUFFLES = 20
"""Permutations that the figures of chance are averaged over."""


@dataclass(frozen=True)
class Truth:
    """Both levels of the labels of N training and M held-out pictures, int64.

    Attributes:
        train_coarse: (N,); held_coarse, held_fine: (M,).
        train_fine: (N,), for figures on training pictures, which are printed as such.
        counts: (C,) number of fine classes among the training pictures of each coarse class.
        scored: (S,) coarse classes that hold two or more and have held-out pictures.
    """

    train_coarse: np.ndarray
    train_fine: np.ndarray
    held_coarse: np.ndarray
    held_fine: np.ndarray
    counts: np.ndarray
    scored: np.ndarray

    @classmethod
    def of(cls, train: tuple[np.ndarray, np.ndarray], held: tuple[np.ndarray, np.ndarray]) -> Truth:
        """From the (coarse, fine) labels of both sides.

        Raises:
            UserError: no coarse class holds two fine ones.
        """
        pairs = np.unique(np.stack(train), axis=1)
        counts = np.bincount(pairs[0], minlength=int(max(train[0].max(), held[0].max())) + 1)
        present = np.unique(held[0])
        scored = present[counts[present] >= 2]
        if not len(scored):
            raise UserError("No coarse class holds two fine ones: there is nothing to discover in this data set.")
        return cls(*train, *held, counts, scored)


@dataclass(frozen=True)
class Division:
    """One way to divide the coarse classes.

    Attributes:
        name: as a table shows it.
        control: whether it is something to beat.
        given_k: "oracle" where the numbers of clusters are those of the fine classes, else "chosen".
        held: (M,) int64 cluster of every held-out picture; ids of different coarse classes may coincide.
        train: (N,) int64, the same of the training pictures.
    """

    name: str
    control: bool
    given_k: str
    held: np.ndarray
    train: np.ndarray


def by_kmeans(
    features: Features, truth: Truth, wanted: Mapping[str, np.ndarray], *, seed: int, control: bool
) -> list[Division]:
    """K-means of every coarse class; a held-out picture goes to the nearest centroid inside its coarse class.

    Args:
        wanted: `given_k` -> (C,) number of clusters of each coarse class. A class with fewer distinct training
            pictures is left whole.
    """
    candidates = sorted({int(k) for ks in wanted.values() for k in ks if k > 0})
    found = classwise_kmeans(features.train, truth.train_coarse, candidates, select=1, seed=seed, min_size=1)
    held = features.held.numpy()
    divisions = []
    for given_k, ks in wanted.items():
        division = _whole(features.name, control, given_k, truth)
        for c, mine, theirs in _divided(ks, truth):
            position = found.ks.index(int(ks[c]))
            centroids = found.centroids[c, found.block(int(ks[c]))]
            if not np.isnan(centroids).any():
                division.train[mine] = found.labels[mine, position]
                division.held[theirs] = nearest_rows(held[theirs], centroids, 1)[0][:, 0]
        divisions.append(division)
    return divisions


def by_ward(features: Features, truth: Truth, wanted: Mapping[str, np.ndarray], *, seed: int) -> list[Division]:
    """Ward's linkage of every coarse class; a held-out picture takes the cluster of the nearest training picture."""
    train, held = features.train.numpy(), features.held.numpy()
    divisions = []
    for given_k, ks in wanted.items():
        division = _whole(f"{features.name}, Ward", True, given_k, truth)
        for c, mine, theirs in _divided(ks, truth):
            labels = cluster(train[mine], "agglomerative", k=int(ks[c]), seed=seed).labels
            division.train[mine] = labels
            division.held[theirs] = labels[nearest_rows(held[theirs], train[mine], 1)[0][:, 0]]
        divisions.append(division)
    return divisions


def score(division: Division, truth: Truth) -> dict[str, Any]:
    """The division's figures on held-out pictures, and under `train` on those it was learned from.

    Each figure is a mean over the scored classes: `ami`, `ari`, Hungarian `accuracy`, and `usage`, exp of the entropy
    of the cluster sizes over the number of fine classes (1: as many clusters as there should be, equally used).
    """
    sides = (
        (division.held, truth.held_coarse, truth.held_fine),
        (division.train, truth.train_coarse, truth.train_fine),
    )
    held, train = (_macro(*side, truth) for side in sides)
    return {"name": division.name, "k": division.given_k, **held, "train": train}


def chance(division: Division, truth: Truth) -> dict[str, Any]:
    """Mean figures of clusters of the same sizes that are dealt out at random inside every coarse class."""
    dealt = [score(_shuffled(division, truth, shuffle), truth) for shuffle in range(SHUFFLES)]

    def mean(parts: list[dict[str, float]]) -> dict[str, float]:
        return {name: float(np.mean([part[name] for part in parts])) for name in ("ami", "ari", "accuracy", "usage")}

    about = {"name": "chance, same sizes", "k": division.given_k}
    return {**about, **mean(dealt), "train": mean([part["train"] for part in dealt])}


def ami_replicates(division: Division, truth: Truth, key: tuple[str, ...]) -> np.ndarray:
    """(REPLICATES,) macro AMI on resamples of the held-out pictures, the same ones for everything under `key`.

    A class of which a resample holds fewer than two fine classes is left out of that resample's mean.
    """
    return np.array(
        [
            _macro_ami(division.held[rows], truth.held_coarse[rows], truth.held_fine[rows], truth.scored)
            for rows in (bootstrap_rows(len(division.held), r, *key) for r in range(REPLICATES))
        ]
    )


def k_errors(chosen: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """How far (C,) chosen numbers of subclasses lie from the true ones, over the classes that have pictures."""
    there = counts > 0
    error = np.abs(chosen - counts)[there]
    single = counts == 1
    return {
        "mean_error": float(error.mean()),
        "exact": float((error == 0).mean()),
        "classes": int(there.sum()),
        "single_classes": int(single.sum()),
        "single_kept": float((chosen[single] == 1).mean()) if single.any() else None,
        "chosen": chosen[there].tolist(),
        "true": counts[there].tolist(),
    }


def _whole(name: str, control: bool, given_k: str, truth: Truth) -> Division:
    return Division(name, control, given_k, np.zeros_like(truth.held_coarse), np.zeros_like(truth.train_coarse))


def _divided(ks: np.ndarray, truth: Truth) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The classes with several clusters, and masks of their training and held-out pictures."""
    for c in np.flatnonzero(ks > 1).tolist():
        theirs = truth.held_coarse == c
        if theirs.any():
            yield c, truth.train_coarse == c, theirs


def _shuffled(division: Division, truth: Truth, shuffle: int) -> Division:
    def deal(clusters: np.ndarray, coarse: np.ndarray, side: str) -> np.ndarray:
        # equal classes stay together: a random order inside each of them
        order = np.lexsort((keyed_permutation(len(coarse), "chance", side, shuffle), coarse))
        dealt = np.empty_like(clusters)
        dealt[np.argsort(coarse, kind="stable")] = clusters[order]
        return dealt

    held = deal(division.held, truth.held_coarse, "held")
    return replace(division, held=held, train=deal(division.train, truth.train_coarse, "train"))


def _macro(clusters: np.ndarray, coarse: np.ndarray, fine: np.ndarray, truth: Truth) -> dict[str, float]:
    parts = []
    for c in truth.scored.tolist():
        mine = coarse == c
        found, known = np.unique(clusters[mine], return_inverse=True)[1], fine[mine]
        share = np.bincount(found) / len(found)
        usage = float(np.exp(-(share * np.log(share)).sum())) / int(truth.counts[c])
        parts.append((ami(known, found), ari(known, found), hungarian_accuracy(known, found), usage))
    return dict(zip(("ami", "ari", "accuracy", "usage"), np.mean(parts, axis=0).tolist(), strict=True))


def _macro_ami(clusters: np.ndarray, coarse: np.ndarray, fine: np.ndarray, scored: np.ndarray) -> float:
    values = []
    for c in scored.tolist():
        mine = coarse == c
        known = fine[mine]
        if len(known) and (known != known[0]).any():
            values.append(ami(known, clusters[mine]))
    return float(np.mean(values))
