"""The division of every class under every number of subclasses, while features change from epoch to epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering import ClasswiseClustering, SteadyK
from fgdemo.clustering.follow import follow_kmeans
from fgdemo.clustering.quality import classwise_ari
from train.given_subclasses import GivenSubclasses


@dataclass(frozen=True)
class Rules:
    """How classes are divided.

    Attributes:
        ks: ascending numbers of subclasses.
        select: the criterion that chooses among them.
        patience: how many choices in a row change a class's number.
        least: pictures needed for each subclass, on average.
    """

    ks: tuple[int, ...]
    select: str
    patience: int
    least: int


class SubclassPartition:
    """Clusters of N training pictures inside their classes.

    Attributes:
        clusters: (N, M) int64 cluster inside the class under each K, -1 before the first division and where the class
            is too small.
        chosen: (C,) int64 K of each class, 0 before the first division.
        given: subclasses to start from, some of which may be locked.
    """

    def __init__(
        self, targets: np.ndarray, num_classes: int, rules: Rules, given: GivenSubclasses | None = None
    ) -> None:
        self.targets, self.num_classes, self.rules = np.asarray(targets, np.int64), num_classes, rules
        self.given = given
        self.clusters = np.full((len(self.targets), len(rules.ks)), -1, np.int64)
        self.chosen = np.zeros(num_classes, np.int64)
        self._steady = SteadyK(rules.patience)
        for class_id, k in (given.ks if given else {}).items():
            mine = self.targets == class_id
            self.clusters[mine, rules.ks.index(k)] = given.clusters[mine]

    @property
    def known(self) -> bool:
        """Whether there has been a division."""
        return bool(self.chosen.any())

    def update(self, features: Tensor, *, challenge: bool, choose: bool, seed: int) -> dict[str, float]:
        """Divide again on new (N, D) features; figures of how well that went, and of what has changed.

        Args:
            challenge: let new starts compete.
            choose: let the criterion choose the number of subclasses again, which can take longer than dividing.
        """
        before = self.own_clusters()
        choose = choose or not self.known
        select = self.rules.select if choose else max(self.rules.ks)
        found = self._divide(features, np.arange(len(self.targets)), challenge, seed, select)
        self.clusters = found.labels
        if choose:
            self.chosen = self._steady.settle(np.pad(found.chosen, (0, self.num_classes - len(found.chosen))))
        return {**self._figures(found, features), **self._stability(before)}

    def divide(self, features: Tensor, rows: np.ndarray, seed: int) -> ClasswiseClustering:
        """The division of some of the pictures on (n, D) features of another network, from where clusters stand."""
        found = self._divide(features, rows, not self.known, seed, self.rules.select)
        return found.with_chosen(self.chosen[: len(found.chosen)]) if self.known else found

    def _divide(
        self, features: Tensor, rows: np.ndarray, challenge: bool, seed: int, select: str | int
    ) -> ClasswiseClustering:
        rules = self.rules
        found = follow_kmeans(
            features,
            self.targets[rows],
            self.clusters[rows],
            rules.ks,
            challenge=challenge and self.known,
            select=select,
            min_size=rules.least,
            seed=seed,
        )
        return self.given.impose(found, features, self.clusters, rows) if self.given else found

    def shuffle(self, seed: int) -> None:
        """Deal the clusters of each class out at random among its pictures: equal sizes and K, no meaning."""
        order = np.lexsort((np.random.default_rng([seed, 5]).random(len(self.targets)), self.targets))
        dealt = np.empty_like(self.clusters)
        dealt[np.argsort(self.targets, kind="stable")] = self.clusters[order]
        self.clusters = dealt

    def active(self) -> np.ndarray:
        """(C, sum(ks)) bool, the columns that stand for a subclass: those of the numbers that a class admits, the first
        of all where it admits none. All before the first division."""
        ks = self.rules.ks
        if not self.known:
            return np.ones((self.num_classes, sum(ks)), bool)
        admits = np.zeros((self.num_classes, len(ks)), bool)
        np.logical_or.at(admits, self.targets, self.clusters >= 0)
        columns = np.repeat(admits, ks, axis=1)
        columns[:, 0] |= ~admits.any(1)
        return columns

    def own_clusters(self) -> np.ndarray:
        """(N,) int64 cluster of each picture under the K of its class; 0 where that is no candidate, -1 before the
        first division."""
        chosen = self.chosen[self.targets]
        result = np.where(chosen > 0, 0, -1)
        for position, k in enumerate(self.rules.ks):
            result = np.where(chosen == k, self.clusters[:, position], result)
        return result

    def share(self, total: Callable[[Tensor], Tensor], device: torch.device, first: bool) -> None:
        """Give every process the clusters of the first one."""
        for name in ("clusters", "chosen"):
            mine = torch.from_numpy(getattr(self, name)).to(device)
            setattr(self, name, total(mine if first else torch.zeros_like(mine)).cpu().numpy())

    def state_dict(self) -> dict[str, Tensor]:
        steady = {name: torch.tensor(values) for name, values in self._steady.state_dict().items()}
        return {"clusters": torch.from_numpy(self.clusters), "chosen": torch.from_numpy(self.chosen), **steady}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.clusters, self.chosen = (state[name].cpu().numpy() for name in ("clusters", "chosen"))
        self._steady.load_state_dict({name: state[name].tolist() for name in ("k", "rival", "times")})

    def _figures(self, found: ClasswiseClustering, features: Tensor) -> dict[str, float]:
        """Mean over classes of J_K / J_1, the share of the variance inside a class that stays inside its subclasses,
        and the k-means loss of the chosen K, a picture, in the units of the features."""
        one = _inertia_of_one(features, self.targets, len(found.chosen))
        figures: dict[str, float] = {}
        spread = one > 0
        for position, k in enumerate(found.ks):
            ratios = found.inertia[spread, position] / one[spread]
            if k > 1 and np.isfinite(ratios).any():
                figures[f"subclasses/ratio_{k}"] = float(np.nanmean(ratios))
        chosen = self.chosen[: len(one)]
        own = one.copy()
        for position, k in enumerate(found.ks):
            own = np.where(chosen == k, found.inertia[:, position], own)
        figures["subclasses/ratio"] = float((own[spread] / one[spread]).mean()) if spread.any() else 1.0
        figures["subclasses/kmeans_loss"] = float(own[chosen > 0].sum() / len(self.targets))
        figures["subclasses/k"] = float(chosen[chosen > 0].mean())
        return figures

    def _stability(self, before: np.ndarray) -> dict[str, float]:
        """Agreement with the last division, over the classes that had or have several subclasses."""
        if (before < 0).all():
            return {}
        now = self.own_clusters()
        several = np.unique(self.targets[(before > 0) | (now > 0)])
        if not len(several):
            return {}
        return {"subclasses/ari": float(classwise_ari(self.targets, before, now)[several].mean())}


def _inertia_of_one(features: Tensor, targets: np.ndarray, classes: int) -> np.ndarray:
    """(C,) float64 inertia of each class around its mean."""
    ids = torch.from_numpy(targets).to(features.device)
    counts = torch.bincount(ids, minlength=classes).clamp(min=1)
    sums = torch.zeros(classes, features.shape[1], device=features.device, dtype=torch.float64)
    means = (sums.index_add_(0, ids, features.double()) / counts[:, None]).float()
    squares = (features - means[ids]).square().sum(1, dtype=torch.float64)
    return torch.zeros(classes, device=features.device, dtype=torch.float64).index_add_(0, ids, squares).cpu().numpy()
