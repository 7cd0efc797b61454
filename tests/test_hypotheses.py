"""What a class would be divided into under another K."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoint import write_divided, write_tiny

from fgdemo.checkpoint import read_checkpoint
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery
from fgdemo.hypotheses import alternatives, clusters_under
from fgdemo.recluster import recluster


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery.from_checkpoint(read_checkpoint(write_divided(tmp_path_factory.mktemp("hypotheses") / "divided")))


def test_the_chosen_division_is_no_alternative(gallery: Gallery):
    assert [entry["k"] for entry in gallery.subclasses["classes"]] == [3, 2, 1]
    assert [alternatives(gallery, class_id) for class_id in range(3)] == [[2, 4], [3, 4], []]


def test_a_division_by_a_person_leaves_hypotheses_that_differ(gallery: Gallery):
    assert alternatives(recluster(gallery, [0], max_k=3, seed=1).gallery, 0) == [2]
    assert alternatives(recluster(gallery, [0], k=5).gallery, 0) == []
    # as many subclasses as a hypothesis has, but other ones
    rows = np.flatnonzero(gallery.class_id == 0)
    moved = gallery.subclass_id.copy()
    moved[rows[0]], moved[rows[1]] = moved[rows[1]], moved[rows[0]]
    document = {**gallery.subclasses, "classes": [dict(entry) for entry in gallery.subclasses["classes"]]}
    assert alternatives(gallery.with_subclasses(moved, document), 0) == [2, 3, 4]


def test_clusters_and_their_most_central_pictures(gallery: Gallery):
    found = clusters_under(gallery, 0, 2, 5)
    assert [cluster.size for cluster in found] == [16, 8]
    position = gallery.subclasses["ks"].index(2)
    for cluster in found:
        mine = (gallery.class_id == 0) & (gallery.split == 0) & (gallery.hypotheses[:, position] == cluster.number)
        assert mine.sum() == cluster.size
        x = gallery.embeddings[mine].astype(np.float64)
        mean = x.mean(0)
        assert cluster.spread == pytest.approx(np.square(x - mean).sum(1).mean(), rel=1e-3)
        distances = 1 - x @ mean / np.linalg.norm(x, axis=1) / np.linalg.norm(mean)
        shown = [np.flatnonzero(mine).tolist().index(row) for row in cluster.prototypes]
        assert len(shown) == 5
        np.testing.assert_allclose(distances[shown], np.sort(distances)[:5], atol=1e-6)


def test_the_clusters_of_the_chosen_k_are_the_subclasses(gallery: Gallery):
    found = clusters_under(gallery, 1, 2, 4)
    ids = [{int(i) for i in gallery.subclass_id[cluster.prototypes]} for cluster in found]
    assert all(len(inside) == 1 for inside in ids)
    for cluster, (identity,) in zip(found, ids, strict=True):
        assert cluster.prototypes.tolist() == gallery.prototypes(identity, 4).tolist()


@pytest.mark.parametrize(("class_id", "k"), [(0, 5), (2, 2), (7, 2)])
def test_what_was_not_tried_is_told(gallery: Gallery, class_id: int, k: int):
    with pytest.raises(UserError, match=f"no hypothesis K = {k}"):
        clusters_under(gallery, class_id, k, 3)


def test_a_gallery_without_hypotheses(tmp_path: Path):
    plain = Gallery.from_checkpoint(read_checkpoint(write_tiny(tmp_path / "plain")))
    assert alternatives(plain, 0) == []
    with pytest.raises(UserError, match="no hypothesis K = 2"):
        clusters_under(plain, 0, 2, 3)
