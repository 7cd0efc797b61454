from __future__ import annotations

from functools import partial
from uuid import UUID

import pytest
from support.photographs import (
    check_drawn_validation,
    check_unreadable_pictures_are_named,
    fine_labels,
    write_image_tables,
)

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError

# Groups are 1 and 2, the second with a family between it and the species, as the perching birds have.
CLASSES = {
    0: "Birds",
    1: "Ducks, Geese, and Swans",
    2: "Perching Birds",
    7: "Pond Duck",
    8: "Sea Duck",
    9: "Warblers",
    40: "Reed Warbler",
    317: "Pond Duck  (Breeding male)",
    95: "Pond Duck  (Female/juvenile)",
    1005: "Sea Duck",
    446: "Reed Warbler",
}
PARENTS = {1: 0, 2: 0, 7: 1, 8: 1, 9: 2, 40: 9, 317: 7, 95: 7, 1005: 8, 446: 40}
# In ascending order of the numbers: as text, 1005 would come first.
LEAVES = (95, 317, 446, 1005)


@pytest.fixture
def nabirds(tmp_path, write_picture):
    """Four leaves of ten training pictures and one test picture, the pictures named by hexadecimal ids."""
    folder = tmp_path / "nabirds"
    pictures = {}
    for i in range(11):
        for leaf in (1005, 317, 446, 95):
            key = UUID(int=(i * 7919 + leaf) << 64)
            path = f"{leaf:04d}/{key.hex}.jpg"
            pictures[str(key)] = (path, leaf, i != 3)
            write_picture(folder / "images" / path)
    write_image_tables(folder, pictures, CLASSES)
    (folder / "hierarchy.txt").write_text("".join(f"{child} {parent}\n" for child, parent in PARENTS.items()))
    return tmp_path


def test_official_test_split_and_sorted_labels(nabirds):
    catalogue = load_catalogue("nabirds", nabirds)
    for splits, n in ((("train", "val"), 40), (("test",), 4)):
        labels = fine_labels(catalogue, *splits)
        assert len(labels) == n
        assert all(LEAVES[label] == int(key.split("/")[2]) for key, label in labels.items())
    assert catalogue.keys[0].startswith("nabirds/images/1005/")
    assert catalogue.reader(3).size == (12, 10)
    assert not catalogue.publishable


def test_labels_do_not_depend_on_the_order_of_the_pictures(nabirds):
    before = fine_labels(load_catalogue("nabirds", nabirds), "train", "val", "test")
    table = nabirds / "nabirds" / "images.txt"
    table.write_text("\n".join(sorted(table.read_text().split("\n"), reverse=True)))
    assert fine_labels(load_catalogue("nabirds", nabirds), "train", "val", "test") == before


def test_validation(nabirds):
    check_drawn_validation(partial(load_catalogue, "nabirds", nabirds), per_class=1)


def test_coarse_classes_are_species_or_families(nabirds):
    catalogue = load_catalogue("nabirds", nabirds)
    assert catalogue.class_names("fine") == (
        "Pond Duck (Female/juvenile)",
        "Pond Duck (Breeding male)",
        "Reed Warbler",
        "Sea Duck",
    )
    assert catalogue.class_names("coarse") == ("Pond Duck", "Reed Warbler", "Sea Duck")
    assert catalogue.superclass_names("fine") == ("Pond Duck", "Pond Duck", "Reed Warbler", "Sea Duck")
    families = load_catalogue("nabirds", nabirds, superclasses="family")
    ducks = "Ducks, Geese, and Swans"
    assert families.superclass_names("fine") == (ducks, ducks, "Warblers", ducks)
    assert families.class_names("fine") == catalogue.class_names("fine")


def test_unknown_superclasses_list_the_known_ones(nabirds):
    with pytest.raises(UserError, match="nabirds has no superclasses 'genus': choose one of species, family"):
        load_catalogue("nabirds", nabirds, superclasses="genus")


def test_unreadable_pictures(nabirds):
    check_unreadable_pictures_are_named(load_catalogue("nabirds", nabirds))


@pytest.mark.parametrize(
    "missing",
    ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "hierarchy.txt", "images"],
)
def test_missing_part_gives_path_way_and_size(nabirds, missing):
    path = nabirds / "nabirds" / missing
    path.rename(nabirds / "aside")
    with pytest.raises(UserError, match=r"10 GB, from https://dl\.allaboutbirds\.org/nabirds") as caught:
        load_catalogue("nabirds", nabirds)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("446 40\n", "", r"hierarchy\.txt or its class names lack class 446"),
        ("446 40\n", "446 41\n", r"hierarchy\.txt or its class names lack class 41"),
        ("446 40\n", "446 forty\n", "expected a whole number after 446"),
        ("446 40\n", "x 40\n", "'x' is not the number of a class"),
    ],
)
def test_damaged_hierarchy_is_named(nabirds, old, new, message):
    table = nabirds / "nabirds" / "hierarchy.txt"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        load_catalogue("nabirds", nabirds)
