"""Dividing a gallery anew: known groups are found, identities survive, nonsense is refused."""

from __future__ import annotations

import numpy as np
import pytest

from fgdemo.clustering.quality import ari
from fgdemo.errors import UserError
from fgdemo.gallery import SPLITS, Gallery
from fgdemo.recluster import recluster

GROUPS = (1, 2, 4)
EACH = 30


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """The group of every row, counted over classes."""
    return np.repeat(np.arange(sum(GROUPS)), EACH)


@pytest.fixture(scope="module")
def gallery(truth: np.ndarray) -> Gallery:
    """Three classes of one, two and four tight groups of directions; every tenth row is of the validation split."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(sum(GROUPS), 24))
    classes = np.repeat(np.arange(3), GROUPS)[truth]
    x = centers[truth] + 0.25 * rng.normal(size=(len(truth), 24))
    return Gallery.build(
        x,
        class_id=classes,
        split=np.where(np.arange(len(truth)) % 10 == 9, SPLITS.index("val"), SPLITS.index("train")),
        keys=[f"{i:04d}.png" for i in range(len(truth))],
        subclass_id=np.full(len(truth), -1),
        subclasses={},
    )


@pytest.fixture(scope="module")
def divided(gallery: Gallery) -> Gallery:
    return recluster(gallery).gallery


@pytest.mark.parametrize("criterion", ["silhouette", "bic", "stability"])
def test_finds_the_groups_and_their_number(gallery: Gallery, truth: np.ndarray, criterion: str) -> None:
    found = recluster(gallery, criterion=criterion)
    assert [entry["k"] for entry in found.gallery.subclasses["classes"]] == list(GROUPS)
    assert ari(truth, found.gallery.subclass_id) == 1
    assert found.before == {}
    assert found.after[0].silhouette is None
    assert found.after[0].inertia_ratio == pytest.approx(1)
    assert found.after[2].inertia_ratio < 0.5


@pytest.mark.parametrize("each", [1, 3, 10])
def test_a_largest_k_beyond_the_largest_class(each: int) -> None:
    """Ten pictures a class, as in Flowers-102, hold no twelve subclasses."""
    gallery = Gallery.build(
        np.random.default_rng(1).normal(size=(2 * each, 4)),
        class_id=np.repeat([0, 1], each),
        split=np.full(2 * each, SPLITS.index("train")),
        keys=[str(i) for i in range(2 * each)],
        subclass_id=np.full(2 * each, -1),
        subclasses={},
    )
    classes = recluster(gallery, max_k=12).gallery.subclasses["classes"]
    assert [sum(member["size"] for member in entry["subclasses"]) for entry in classes] == [each, each]


@pytest.mark.parametrize("method", ["kmeans", "spherical", "gmm", "agglomerative"])
def test_every_method_with_a_given_number(gallery: Gallery, truth: np.ndarray, method: str) -> None:
    found = recluster(gallery, [2], method=method, k=4).gallery
    mine = gallery.class_id == 2
    assert ari(truth[mine], found.subclass_id[mine]) == 1
    assert (found.subclass_id[~mine] == -1).all()
    assert found.subclasses["engine"].startswith(method)


def test_hdbscan_finds_its_own_number(gallery: Gallery, truth: np.ndarray) -> None:
    found = recluster(gallery, [1], method="hdbscan")
    assert ari(truth[gallery.class_id == 1], found.gallery.subclass_id[gallery.class_id == 1]) > 0.9
    with pytest.raises(UserError, match="HDBSCAN"):
        recluster(gallery, [1], method="hdbscan", k=2)


def test_document_counts_training_rows(divided: Gallery) -> None:
    train = divided.split == SPLITS.index("train")
    for entry in divided.subclasses["classes"]:
        for member in entry["subclasses"]:
            rows = train & (divided.subclass_id == member["id"])
            assert member["size"] == rows.sum()
            x = divided.embeddings[rows].astype(np.float64)
            assert member["inertia"] == pytest.approx(np.square(x - x.mean(0)).sum(), rel=1e-3)
    assert divided.subclasses["next_id"] == sum(GROUPS)


def test_the_largest_subclass_is_called_1(divided: Gallery) -> None:
    for entry in divided.subclasses["classes"]:
        sizes = {member["name"]: member["size"] for member in entry["subclasses"]}
        assert sizes["1"] == max(sizes.values())
        assert set(sizes) == {str(n + 1) for n in range(entry["k"])}


def test_same_division_keeps_ids_and_names(divided: Gallery) -> None:
    again = recluster(divided, seed=5)
    np.testing.assert_array_equal(again.gallery.subclass_id, divided.subclass_id)
    assert again.gallery.subclasses["next_id"] == divided.subclasses["next_id"]
    assert again.agreement[2] == {"ari": pytest.approx(1), "ami": pytest.approx(1)}
    assert again.before == again.after


def test_a_renamed_subclass_keeps_its_name_through_another_k(divided: Gallery) -> None:
    document = divided.subclasses
    renamed = {**document, "classes": [dict(entry) for entry in document["classes"]]}
    target = document["classes"][2]["subclasses"][1]
    renamed["classes"][2]["subclasses"] = [
        {**m, "name": "spotted"} if m["id"] == target["id"] else m for m in document["classes"][2]["subclasses"]
    ]
    more = recluster(divided.with_subclasses(divided.subclass_id, renamed), [2], k=6).gallery
    fewer = recluster(more, [2], k=2).gallery
    again = recluster(fewer, [2], k=4).gallery
    ids = {m["name"]: m["id"] for m in more.subclasses["classes"][2]["subclasses"]}
    assert ids["spotted"] == target["id"]
    used = set(divided.centroid_ids) | set(more.centroid_ids)
    fresh = set(again.centroid_ids) - set(fewer.centroid_ids)
    assert len(fresh) == 2
    assert not fresh & used, "an id was used twice"
    for step in (more, fewer, again):
        members = step.subclasses["classes"][2]["subclasses"]
        assert len({m["name"] for m in members}) == len(members)


def test_other_classes_and_the_gallery_itself_stay(divided: Gallery) -> None:
    before = divided.subclass_id.copy()
    found = recluster(divided, [2], k=2).gallery
    np.testing.assert_array_equal(divided.subclass_id, before)
    others = divided.class_id != 2
    np.testing.assert_array_equal(found.subclass_id[others], before[others])
    assert found.subclasses["classes"][:2] == divided.subclasses["classes"][:2]


def test_validation_rows_follow_the_nearest_centroid(divided: Gallery) -> None:
    val = np.flatnonzero(divided.split == SPLITS.index("val"))
    nearest = divided.nearest_subclass(divided.embeddings[val], divided.class_id[val])
    np.testing.assert_array_equal(divided.subclass_id[val], nearest.id)


def test_principal_components_and_seed_matter(gallery: Gallery) -> None:
    plain = recluster(gallery, [2], k=9).gallery.subclass_id
    assert not np.array_equal(plain, recluster(gallery, [2], k=9, pca_dim=2).gallery.subclass_id)
    assert not np.array_equal(plain, recluster(gallery, [2], k=9, seed=1).gallery.subclass_id)
    np.testing.assert_array_equal(plain, recluster(gallery, [2], k=9).gallery.subclass_id)
    assert max(entry["k"] for entry in recluster(gallery, max_k=2).gallery.subclasses["classes"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "nonsense"}, "spherical"),
        ({"class_ids": [7]}, "7"),
        ({"class_ids": []}, "none"),
        ({"k": 0}, "1 to 27"),
        ({"k": 28}, "1 to 27"),
        ({"k": 2.5}, "2.5"),
        ({"k": True}, "True"),
        ({"pca_dim": 0}, "1 to 24"),
        ({"pca_dim": 999}, "1 to 24"),
        ({"criterion": "nonsense"}, "bic"),
        ({"at_least": 0}, "1 or more"),
        ({"at_least": 2, "method": "gmm"}, "kmeans and spherical"),
        ({"at_least": 10, "k": 3}, "need 30"),
    ],
)
def test_refusals(gallery: Gallery, arguments: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        recluster(gallery, **arguments)


def test_equal_pictures_give_fewer_subclasses_than_asked() -> None:
    x = np.repeat(np.eye(3, 8), 10, axis=0)
    gallery = Gallery.build(
        x,
        class_id=np.zeros(30, int),
        split=np.zeros(30, int),
        keys=[str(i) for i in range(30)],
        subclass_id=np.full(30, -1),
        subclasses={},
    )
    found = recluster(gallery, k=5).gallery
    assert found.subclasses["classes"][0]["k"] == 3
    assert ari(np.repeat([0, 1, 2], 10), found.subclass_id) == 1


def test_every_subclass_has_its_least_size(gallery: Gallery) -> None:
    found = recluster(gallery, [2], k=9, at_least=12).gallery
    sizes = [m["size"] for m in found.subclasses["classes"][-1]["subclasses"]]
    assert len(sizes) == 9
    assert min(sizes) == 12
    assert not np.array_equal(found.subclass_id, recluster(gallery, [2], k=9).gallery.subclass_id)


@pytest.mark.parametrize("method", ["kmeans", "agglomerative"])
def test_progress_counts_classes_and_may_end_the_work(gallery: Gallery, method: str) -> None:
    seen: list[tuple[int, int]] = []
    recluster(gallery, method=method, k=2, progress=lambda *now: seen.append(now))
    classes = len(np.unique(gallery.class_id[gallery.train_rows]))
    assert seen[-1] == (classes, classes)

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        recluster(gallery, method=method, k=2, progress=stop)
