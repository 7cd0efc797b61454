"""The division of classes from epoch to epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from train.subclass_partition import Rules, SubclassPartition

KS = (1, 2, 3)


def rules(**changes: object) -> Rules:
    return Rules(**{"ks": KS, "select": "silhouette", "patience": 1, "least": 2, **changes})


def data(seed: int = 0) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Class 0 has three blobs, class 1 two, class 2 one, class 3 a single picture, class 4 none."""
    rng = np.random.default_rng(seed)
    targets = np.array([0] * 45 + [1] * 40 + [2] * 30 + [3])
    truth = np.concatenate([np.arange(45) % 3, np.arange(40) % 2, np.zeros(31, int)])
    centres = rng.normal(size=(5, 3, 8)) * 8
    features = centres[targets, truth] + rng.normal(size=(len(targets), 8))
    order = rng.permutation(len(targets))
    return torch.from_numpy(features[order]).float(), targets[order], truth[order]


def test_finds_the_blobs_and_their_number_and_keeps_their_ids() -> None:
    features, targets, truth = data()
    partition = SubclassPartition(targets, 5, rules())
    assert not partition.known
    assert (partition.own_clusters() == -1).all()
    figures = partition.update(features, challenge=True, choose=True, seed=0)
    assert partition.chosen.tolist() == [3, 2, 1, 1, 0]
    own = partition.own_clusters()
    for c in (0, 1, 2):
        assert adjusted_rand_score(own[targets == c], truth[targets == c]) == 1
    assert "subclasses/ari" not in figures
    later = partition.update(features * 2 + 1, challenge=True, choose=True, seed=1)
    assert np.array_equal(partition.own_clusters(), own)
    assert later["subclasses/ari"] == 1
    assert later["subclasses/k"] == pytest.approx((3 + 2 + 1 + 1) / 4)


def test_figures_by_hand() -> None:
    features = torch.tensor([[0.0], [1.0], [2.0], [20.0], [21.0], [22.0], [5.0], [5.5]])
    partition = SubclassPartition(np.array([0, 0, 0, 0, 0, 0, 1, 1]), 2, rules(ks=(2,)))
    figures = partition.update(features, challenge=False, choose=True, seed=0)
    # class 0: 604 around its mean, 4 around two; class 1 has too few pictures for two subclasses
    assert partition.chosen.tolist() == [2, 1]
    assert figures["subclasses/ratio_2"] == pytest.approx(4 / 604)
    assert figures["subclasses/ratio"] == pytest.approx((4 / 604 + 1) / 2)
    assert figures["subclasses/kmeans_loss"] == pytest.approx((4 + 0.125) / 8)


def test_active_columns() -> None:
    features, targets, _ = data()
    partition = SubclassPartition(targets, 5, rules(ks=(2, 3)))
    assert partition.active().all()
    partition.update(features, challenge=False, choose=True, seed=0)
    active = partition.active()
    assert active[:3].all()
    # neither the class of one picture nor the empty one admits a number of subclasses: the first column stands for each
    assert active[3:].tolist() == [[True] + [False] * 4] * 2
    assert (partition.own_clusters()[targets == 3] == 0).all()


def test_patience_holds_back_a_change() -> None:
    features, targets, truth = data()
    patient, quick = (SubclassPartition(targets, 5, rules(patience=p)) for p in (3, 1))
    merged = features.clone()
    # two of the three blobs of class 0 fall together
    shift = features[(targets == 0) & (truth == 1)].mean(0) - features[(targets == 0) & (truth == 2)].mean(0)
    merged[(targets == 0) & (truth == 2)] += shift
    for partition in (patient, quick):
        partition.update(features, challenge=False, choose=True, seed=0)
        partition.update(merged, challenge=False, choose=True, seed=0)
    assert quick.chosen[0] == 2
    assert patient.chosen[0] == 3


def test_the_number_stays_until_it_is_chosen_again() -> None:
    features, targets, truth = data()
    partition = SubclassPartition(targets, 5, rules())
    partition.update(features, challenge=False, choose=False, seed=0)
    assert partition.chosen[0] == 3, "the first division always chooses"
    one = features.clone()
    for cluster in (1, 2):
        rows = (targets == 0) & (truth == cluster)
        one[rows] += features[(targets == 0) & (truth == 0)].mean(0) - features[rows].mean(0)
    partition.update(one, challenge=False, choose=False, seed=0)
    assert partition.chosen[0] == 3
    partition.update(one, challenge=False, choose=True, seed=0)
    assert partition.chosen[0] == 1


def test_shuffled_clusters_keep_sizes_and_lose_meaning() -> None:
    features, targets, truth = data()
    partition = SubclassPartition(targets, 5, rules())
    partition.update(features, challenge=False, choose=True, seed=0)
    before = partition.clusters.copy()
    partition.shuffle(7)
    for c in range(4):
        for position in range(len(KS)):
            sizes = [np.sort(x[targets == c, position]) for x in (before, partition.clusters)]
            assert np.array_equal(*sizes)
    mine = targets == 0
    assert abs(adjusted_rand_score(partition.clusters[mine, 2], truth[mine])) < 0.2


def test_divides_the_pictures_of_another_network_from_where_it_stands() -> None:
    features, targets, _ = data()
    partition = SubclassPartition(targets, 5, rules())
    partition.update(features, challenge=False, choose=True, seed=0)
    rows = np.flatnonzero(np.arange(len(targets)) % 2 == 0)
    turned = features[rows] @ torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    found = partition.divide(turned, rows, seed=0)
    assert np.array_equal(found.subclass_labels(), partition.own_clusters()[rows])
    assert np.array_equal(found.chosen, partition.chosen[: len(found.chosen)])


def test_state_round_trip_goes_on_alike() -> None:
    features, targets, _ = data()
    first = SubclassPartition(targets, 5, rules(patience=2))
    first.update(features, challenge=False, choose=True, seed=0)
    second = SubclassPartition(targets, 5, rules(patience=2))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    other = data(1)[0]
    for partition in (first, second):
        partition.update(other, challenge=True, choose=True, seed=3)
    assert np.array_equal(first.clusters, second.clusters)
    assert np.array_equal(first.chosen, second.chosen)


def test_processes_get_the_first_ones_clusters() -> None:
    features, targets, _ = data()
    first, second = (SubclassPartition(targets, 5, rules()) for _ in range(2))
    first.update(features, challenge=False, choose=True, seed=0)
    sent: list[torch.Tensor] = []
    first.share(lambda t: sent.append(t) or t, torch.device("cpu"), first=True)
    given = iter(sent)
    second.share(lambda t: t + next(given), torch.device("cpu"), first=False)
    assert np.array_equal(first.clusters, second.clusters)
    assert np.array_equal(first.chosen, second.chosen)
