from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

import fgdemo.gallery
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery


def document(**ids_by_class: tuple[int, ...]) -> dict[str, Any]:
    """subclasses.json with the given ids, as c0=(4, 7)."""
    classes = []
    for name, ids in ids_by_class.items():
        members = [{"id": i, "name": f"n{i}", "size": 1, "inertia": None, "silhouette": None} for i in ids]
        entry = {"class_id": int(name[1:]), "k": len(ids), "chosen_by": "test", "scores": {}, "subclasses": members}
        classes.append(entry)
    return {"schema": 1, "next_id": 100, "engine": "test", "seed": 0, "classes": classes}


def degrees(*angles: float) -> np.ndarray:
    """Points of the plane at these angles, of various lengths."""
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1) * np.arange(1, len(angles) + 1)[:, None]


def fan(**changes: Any) -> Gallery:
    """Training pictures at 0, 10, 20 degrees (subclass 9 of class 0) and 90, 100 (4 of class 0), 180 (5 of 1)."""
    parts: dict[str, Any] = {
        "class_id": [0, 0, 0, 0, 0, 1, 1, 0],
        "split": [0, 0, 0, 0, 0, 0, 1, 2],
        "keys": [f"k{i}" for i in range(8)],
        "subclass_id": np.array([9, 9, 9, 4, 4, 5, -1, 9]),
        "subclasses": document(c0=(9, 4), c1=(5,)),
    }
    return Gallery.build(degrees(0, 10, 20, 90, 100, 180, 45, 11), **{**parts, **changes})


def test_build_normalises_and_averages_training_rows():
    gallery = fan()
    assert gallery.embeddings.dtype == np.float16
    assert np.allclose(np.linalg.norm(gallery.embeddings.astype(np.float32), axis=1), 1, atol=1e-3)
    assert gallery.centroid_ids.tolist() == [4, 5, 9]
    assert gallery.centroid_class.tolist() == [0, 1, 0]
    angles = np.degrees(np.arctan2(gallery.centroids[:, 1], gallery.centroids[:, 0]))
    assert np.allclose(angles, [95, 180, 10], atol=0.1)


def test_given_centroids_are_kept():
    given = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert np.array_equal(fan(centroids=given).centroids, given)


def test_prototypes_are_training_rows_most_central_first():
    gallery = fan()
    # The test picture at 11 degrees is nearer to the centroid at 10 than 0 and 20 are, and must not appear.
    assert gallery.prototypes(9, 10).tolist() == [1, 0, 2]
    assert gallery.prototypes(9, 1).tolist() == [1]
    assert gallery.prototypes(9, 0).tolist() == []
    with pytest.raises(UserError, match="no subclass 6"):
        gallery.prototypes(6, 3)


def test_neighbours_are_the_oracles():
    rng = np.random.default_rng(1)
    x, queries = rng.normal(size=(300, 12)), rng.normal(size=(7, 12))
    split = rng.integers(0, 3, 300)
    keys = [str(i) for i in range(300)]
    gallery = Gallery.build(
        x, class_id=np.zeros(300), split=split, keys=keys, subclass_id=np.full(300, -1), subclasses=document()
    )
    rows, distances = gallery.neighbours(queries, 9)
    train = np.flatnonzero(split == 0)
    oracle = NearestNeighbors(metric="cosine").fit(gallery.embeddings[train].astype(np.float64))
    expected, positions = oracle.kneighbors(queries, 9)
    assert np.array_equal(rows, train[positions])
    assert np.allclose(distances, expected, atol=1e-5)


def test_neighbours_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(2)
    parts = {"class_id": np.zeros(50), "split": np.zeros(50), "keys": [str(i) for i in range(50)]}
    x = rng.normal(size=(50, 4))
    x[40:] = x[:10]
    gallery = Gallery.build(x, **parts, subclass_id=np.full(50, -1), subclasses=document())
    whole = gallery.neighbours(x[:5], 6)
    monkeypatch.setattr(fgdemo.gallery, "_CHUNK", 7)
    chunked = gallery.neighbours(x[:5], 6)
    assert np.array_equal(whole[0], chunked[0])
    assert np.allclose(whole[1], chunked[1], atol=1e-6)
    # Equal pictures: the lower row first.
    assert [row[:2].tolist() for row in whole[0]] == [[i, i + 40] for i in range(5)]


def test_fewer_neighbours_than_asked():
    rows, distances = fan().neighbours(torch.tensor([[1.0, 0.0]]), 50)
    assert rows.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert np.allclose(distances[0], 1 - np.cos(np.radians([0, 10, 20, 90, 100, 180])), atol=1e-3)
    without_train = fan(split=[1] * 8, subclass_id=np.full(8, -1), subclasses=document())
    assert without_train.neighbours(np.ones((2, 2)), 3)[0].shape == (2, 0)


def test_nearest_subclass_stays_inside_the_class():
    gallery = fan()
    found = gallery.nearest_subclass(degrees(170, 170, 12, 0), np.array([0, 1, 0, 7]))
    assert found.id.tolist() == [4, 5, 9, -1]
    assert found.runner_up.tolist() == [9, -1, 4, -1]
    assert np.allclose(found.distance[:3], 1 - np.cos(np.radians([75, 10, 2])), atol=1e-3)
    assert np.isnan(found.distance[3])
    assert np.isnan(found.runner_up_distance[[1, 3]]).all()
    one = gallery.nearest_subclass(degrees(12)[0], 0)
    assert (one.id, one.runner_up) == (9, 4)
    assert isinstance(one.distance, float)
    assert one.distance == pytest.approx(float(found.distance[2]), abs=1e-6)


def test_a_zero_vector_is_at_distance_one_from_everything():
    gallery = fan()
    assert np.allclose(gallery.neighbours(np.zeros((1, 2)), 6)[1], 1)
    assert gallery.nearest_subclass(np.zeros(2), 1).distance == 1


def test_reclustering_gives_a_new_gallery_and_leaves_the_old():
    old = fan()
    new = old.with_subclasses(np.array([20, 20, 21, 21, 21, 22, -1, 20]), document(c0=(21, 20), c1=(22,)))
    assert old.centroid_ids.tolist() == [4, 5, 9]
    assert old.prototypes(9, 1).tolist() == [1]
    assert new.centroid_ids.tolist() == [20, 21, 22]
    assert sorted(new.prototypes(20, 3)) == [0, 1]
    assert new.members[21]["name"] == "n21"
    with pytest.raises(UserError, match="no subclass 9"):
        new.prototypes(9, 1)


def test_a_subclass_needs_a_training_picture():
    with pytest.raises(UserError, match="Subclass 9 has no training picture"):
        fan(split=[1, 1, 1, 0, 0, 0, 0, 0], subclass_id=np.array([9, 9, 9, 4, 4, 5, -1, -1]))


def test_nan_names_its_picture():
    x = degrees(0, 1)
    x[1, 0] = np.nan
    with pytest.raises(UserError, match='"b" holds NaN'):
        Gallery.build(x, class_id=[0, 0], split=[0, 0], keys=["a", "b"], subclass_id=[-1, -1], subclasses=document())


def test_thumbnails_and_tensors_round_trip():
    buffer = io.BytesIO()
    Image.new("RGB", (5, 3), (0, 128, 255)).save(buffer, "WEBP", lossless=True)
    gallery = fan(thumbnails=[b""] * 3 + [buffer.getvalue()] + [b""] * 3 + [b"no picture"])
    assert gallery.thumbnail(0) is None
    assert gallery.thumbnail(3).size == (5, 3)
    assert gallery.thumbnail(3).getpixel((1, 1)) == (0, 128, 255)
    with pytest.raises(UserError, match="Not a readable image"):
        gallery.thumbnail(7)
    tensors = gallery.to_tensors()
    assert bytes(tensors["keys"].tolist()) == b"k0k1k2k3k4k5k6k7"
    assert tensors["key_offsets"].tolist() == list(range(0, 17, 2))
    assert {name: str(t.dtype) for name, t in tensors.items()} == {
        "embeddings": "torch.float16",
        "class_id": "torch.int32",
        "subclass_id": "torch.int32",
        "split": "torch.uint8",
        "keys": "torch.uint8",
        "key_offsets": "torch.int64",
        "thumbnails": "torch.uint8",
        "thumbnail_offsets": "torch.int64",
        "centroids": "torch.float32",
        "centroid_ids": "torch.int32",
    }


def test_an_empty_gallery_answers_with_nothing():
    empty = Gallery.build(
        np.zeros((0, 4)), class_id=[], split=[], keys=[], subclass_id=np.zeros(0), subclasses=document()
    )
    assert len(empty) == 0
    assert empty.neighbours(np.ones((2, 4)), 3)[0].shape == (2, 0)
    assert empty.nearest_subclass(np.ones((2, 4)), np.array([0, 1])).id.tolist() == [-1, -1]
