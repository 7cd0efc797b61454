"""A gallery divided by a clustering made elsewhere: chosen subclasses, every hypothesis, columns of the head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fgdemo.clustering import ClasswiseClustering, classwise_kmeans
from fgdemo.clustering.quality import ari
from fgdemo.gallery import TRAIN, Gallery
from fgdemo.recluster import divide, recluster

GROUPS = (1, 2, 4)
EACH = 30
KS = (2, 3, 4)
TINY = 3
"""A class of so many equal pictures, which no K of KS divides; class 4 has no picture at all."""


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.append(np.repeat(np.arange(sum(GROUPS)), EACH), [sum(GROUPS)] * TINY)


@pytest.fixture(scope="module")
def gallery(truth: np.ndarray) -> Gallery:
    """Classes of one, two, four tight groups and one of equal pictures, shuffled; every tenth of the first is val."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(sum(GROUPS) + 1, 24))
    classes = np.repeat(np.arange(4), [*GROUPS, 1])[truth]
    x = centers[truth] + 0.25 * rng.normal(size=(len(truth), 24)) * (classes < 3)[:, None]
    return Gallery.build(
        x,
        class_id=classes,
        split=np.where((np.arange(len(truth)) % 10 == 9) & (classes < 3), 1, TRAIN),
        keys=[f"{i:04d}.png" for i in range(len(truth))],
        subclass_id=np.full(len(truth), -1),
        subclasses={},
    )


def clustered(gallery: Gallery, ks: tuple[int, ...] = KS, select: str | int = "silhouette") -> ClasswiseClustering:
    rows = gallery.train_rows
    found = classwise_kmeans(
        gallery.embeddings[rows].astype(np.float32), gallery.class_id[rows], ks, select=select, seed=3
    )
    empty = {
        "centroids": np.full((1, *found.centroids.shape[1:]), np.nan, np.float32),
        "sizes": np.zeros((1, sum(ks)), np.int64),
        "inertia": np.full((1, len(ks)), np.nan),
        "means": np.full((1, gallery.dim), np.nan, np.float32),
        "chosen": np.zeros(1, np.int64),
    }
    more = {name: np.concatenate([getattr(found, name), lines]) for name, lines in empty.items()}
    scores = {name: np.concatenate([table, [[np.nan] * len(ks)]]) for name, table in found.scores.items()}
    return replace(found, **more, scores=scores)


@pytest.fixture(scope="module")
def found(gallery: Gallery) -> ClasswiseClustering:
    return clustered(gallery)


@pytest.fixture(scope="module")
def divided(gallery: Gallery, found: ClasswiseClustering) -> Gallery:
    return divide(gallery, found, chosen_by="silhouette", columns=True)


def test_subclasses_are_the_clusters_of_the_chosen_k(divided: Gallery, found: ClasswiseClustering, truth: np.ndarray):
    rows = divided.train_rows
    assert [entry["k"] for entry in divided.subclasses["classes"]] == found.chosen[:4].tolist()
    for class_id in range(4):
        mine = found.class_ids == class_id
        assert ari(divided.subclass_id[rows][mine], found.subclass_labels()[mine]) == 1
    assert ari(truth[divided.class_id == 2], divided.subclass_id[divided.class_id == 2]) == 1
    assert divided.subclasses["engine"] == f"kmeans/{found.engine}"
    assert divided.subclasses["seed"] == 3


def test_every_hypothesis_is_kept_and_other_splits_follow_the_nearest(divided: Gallery, found: ClasswiseClustering):
    assert divided.subclasses["ks"] == list(KS)
    rows = divided.train_rows
    np.testing.assert_array_equal(divided.hypotheses[rows], found.labels)
    for row in np.flatnonzero(divided.split != TRAIN).tolist():
        for position, k in enumerate(KS):
            mine = rows[divided.class_id[rows] == divided.class_id[row]]
            clusters = divided.hypotheses[mine, position]
            means = np.stack([divided.embeddings[mine][clusters == c].astype(np.float64).mean(0) for c in range(k)])
            cosines = means @ divided.embeddings[row].astype(np.float64) / np.linalg.norm(means, axis=1)
            assert divided.hypotheses[row, position] == cosines.argmax()


def test_columns_lead_from_the_head_to_the_subclass(divided: Gallery, found: ClasswiseClustering):
    members = divided.members
    rows = divided.train_rows[divided.class_id[divided.train_rows] < 3]
    for row, label in zip(rows.tolist(), found.labels, strict=False):
        k = int(found.chosen[divided.class_id[row]])
        expected = sum(KS[: KS.index(k)]) + label[KS.index(k)]
        assert members[int(divided.subclass_id[row])]["column"] == expected


def test_a_class_without_any_k_is_one_subclass_in_the_first_column(divided: Gallery, found: ClasswiseClustering):
    assert found.chosen[3] == 1
    entry = divided.subclasses["classes"][3]
    assert [(m["size"], m["column"]) for m in entry["subclasses"]] == [(TINY, 0)]
    assert entry["scores"] == {}
    assert (divided.hypotheses[divided.class_id == 3] == -1).all()


def test_an_empty_class_has_no_entry(divided: Gallery, found: ClasswiseClustering):
    assert len(found.chosen) == 5
    assert [entry["class_id"] for entry in divided.subclasses["classes"]] == [0, 1, 2, 3]


def test_scores_are_those_of_the_criterion_that_chose(gallery: Gallery, divided: Gallery, found: ClasswiseClustering):
    table = found.scores["silhouette"]
    for entry in divided.subclasses["classes"][:3]:
        line = table[entry["class_id"]]
        assert entry["scores"] == {str(k): s for k, s in zip(KS, line.tolist(), strict=True) if np.isfinite(s)}
        assert entry["chosen_by"] == "silhouette"
    by_bic = divide(gallery, found, chosen_by="bic", columns=False)
    assert by_bic.subclasses["classes"][2]["scores"]["3"] == found.scores["bic"][2, 1]
    given = divide(gallery, clustered(gallery, select=3), chosen_by="given", columns=False)
    assert given.subclasses["classes"][2]["scores"] == {}
    assert not any("column" in member for member in given.members.values())


def test_it_says_what_it_was_told_of_engine_and_seed(gallery: Gallery, found: ClasswiseClustering):
    told = divide(gallery, found, chosen_by="silhouette", columns=False, engine="kmeans/stream", seed=9).subclasses
    assert (told["engine"], told["seed"]) == ("kmeans/stream", 9)


def test_dividing_again_keeps_identities_and_takes_other_numbers(divided: Gallery):
    again = divide(divided, clustered(divided, (1, 2, 4)), chosen_by="silhouette", columns=True)
    assert again.subclasses["ks"] == [1, 2, 4]
    assert again.hypotheses.shape == (len(divided), 3)
    assert set(again.subclass_id[again.class_id == 2]) == set(divided.subclass_id[divided.class_id == 2])
    assert (again.hypotheses[again.class_id == 3] == [0, -1, -1]).all()


def test_a_clustering_of_other_rows_is_refused(gallery: Gallery, found: ClasswiseClustering):
    with pytest.raises(ValueError, match="training rows"):
        divide(gallery, replace(found, class_ids=found.class_ids[:-1]), chosen_by="silhouette", columns=True)


def test_reclustering_renews_the_hypotheses_of_its_classes_alone(divided: Gallery):
    found = recluster(divided, [2], seed=1, max_k=6).gallery
    assert found.subclasses["ks"] == list(KS)
    others = divided.class_id != 2
    np.testing.assert_array_equal(found.hypotheses[others], divided.hypotheses[others])
    mine = np.flatnonzero(~others)
    for position in range(len(KS)):
        assert ari(found.hypotheses[mine, position], divided.hypotheses[mine, position]) > 0.5
    entry = found.subclasses["classes"][2]
    assert set(entry["scores"]) == set("123456")
    assert not any("column" in member for member in entry["subclasses"])
    assert found.subclasses["classes"][:2] == divided.subclasses["classes"][:2]
    assert [m["column"] for m in found.subclasses["classes"][3]["subclasses"]] == [0]


def test_what_was_not_tried_is_no_hypothesis(divided: Gallery):
    mine = divided.class_id == 2
    up_to_three = recluster(divided, [2], max_k=3).gallery.hypotheses[mine]
    assert (up_to_three[:, 2] == -1).all()
    assert (up_to_three[:, :2] >= 0).all()
    for arguments in ({"k": 3}, {"method": "agglomerative"}):
        changed = recluster(divided, [2], **arguments).gallery
        assert (changed.hypotheses[mine] == -1).all()
        np.testing.assert_array_equal(changed.hypotheses[~mine], divided.hypotheses[~mine])
        assert changed.subclasses["classes"][2]["scores"] == {}


def test_a_gallery_without_hypotheses_gets_none_from_reclustering(gallery: Gallery):
    found = recluster(gallery).gallery
    assert found.hypotheses is None
    assert "ks" not in found.subclasses
