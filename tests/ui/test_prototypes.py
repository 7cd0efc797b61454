from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_checkpoint import write_tiny

from fgdemo.checkpoint import read_checkpoint
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery
from fgdemo.ui.prototypes import MAX_NAME, _names, _pictures, rename


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery.from_checkpoint(read_checkpoint(write_tiny(tmp_path_factory.mktemp("names") / "tiny")))


def test_renaming_changes_names_and_nothing_else(gallery: Gallery):
    renamed = rename(gallery, {8: "  spotted ", 5: "moss 1"})
    assert {i: member["name"] for i, member in renamed.members.items()} == {3: "kind 3", 8: "spotted", 5: "moss 1"}
    assert gallery.members[8]["name"] == "kind 8"
    assert np.array_equal(renamed.centroids, gallery.centroids)
    assert np.array_equal(renamed.subclass_id, gallery.subclass_id)
    assert renamed.subclasses["next_id"] == gallery.subclasses["next_id"]


def test_the_same_name_in_two_classes_and_swapped_names_are_fine(gallery: Gallery):
    assert rename(gallery, {5: "kind 3"}).members[5]["name"] == "kind 3"
    swapped = rename(gallery, {3: "kind 8", 8: "kind 3"}).members
    assert (swapped[3]["name"], swapped[8]["name"]) == ("kind 8", "kind 3")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({}, "No name was changed"),
        ({3: "kind 3"}, "No name was changed"),
        ({4: "x"}, "There is no subclass 4"),
        ({3: "kind 8"}, 'called "kind 8"'),
        ({3: "   "}, "one line of 1 to 80"),
        ({3: "a\nb"}, "one line of 1 to 80"),
        ({3: "\u202eabc"}, "one line of 1 to 80"),
        ({3: "x" * (MAX_NAME + 1)}, "one line of 1 to 80"),
    ],
)
def test_bad_names_are_refused(gallery: Gallery, names: dict[int, str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        rename(gallery, names)


def test_typed_names_are_read_from_the_page():
    assert _names(json.dumps({"3": "a", "8": 5})) == {3: "a", 8: "5"}
    assert _names(None) == _names("") == {}
    for broken in ("{", "[1]", '{"x": "a"}', "3", "[" * 100_000):
        with pytest.raises(UserError, match="did not arrive"):
            _names(broken)


def test_pictures_come_most_central_first_with_their_distance(gallery: Gallery):
    pictures = _pictures(gallery, 5, 10)
    assert [p["row"] for p in pictures] == gallery.prototypes(5, 10).tolist()
    distances = [p["distance"] for p in pictures]
    assert distances == sorted(distances)
    centroid = gallery.centroids[gallery.centroid_ids.tolist().index(5)].astype(np.float64)
    vector = gallery.embeddings[pictures[0]["row"]].astype(np.float64)
    cosine = vector @ centroid / np.linalg.norm(vector) / np.linalg.norm(centroid)
    assert distances[0] == pytest.approx(1 - cosine, abs=1e-5)
