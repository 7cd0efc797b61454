from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from PIL import Image
from support.photographs import check_drawn_validation, check_unreadable_pictures_are_named, fine_labels

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError

# File names of cats begin with a capital letter; class numbers run through both species.
BREEDS = (("Barn_Cat", 1, 1), ("barn_terrier", 2, 1), ("pug", 2, 2), ("Zebra", 1, 2))


@pytest.fixture
def pets(tmp_path, write_picture):
    """Four breeds of ten trainval and two test pictures in torchvision's layout."""
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for name, numbers in (("trainval", range(1, 11)), ("test", range(100, 102))):
        lines = []
        for number, (breed, species, breed_id) in enumerate(BREEDS, start=1):
            for i in numbers:
                write_picture(folder / "images" / f"{breed}_{i}.jpg")
                lines.append(f"{breed}_{i} {number} {species} {breed_id}\n")
        (folder / "annotations" / f"{name}.txt").write_text("".join(lines))
    return tmp_path


@pytest.mark.parametrize(("theirs", "splits"), [("trainval", ("train", "val")), ("test", ("test",))])
def test_agrees_with_torchvision(pets, theirs, splits):
    from torchvision.datasets import OxfordIIITPet

    catalogue = load_catalogue("oxford_pets", pets)
    both = OxfordIIITPet(pets, split=theirs), OxfordIIITPet(pets, split=theirs, target_types="binary-category")
    keys = [path.relative_to(pets).as_posix() for path in both[0]._images]
    assert fine_labels(catalogue, *splits) == dict(zip(keys, both[0]._labels, strict=True))
    assert list(catalogue.class_names("fine")) == both[0].classes
    coarse = dict(zip(catalogue.keys.tolist(), catalogue.coarse.tolist(), strict=True))
    assert [coarse[key] for key in keys] == both[1]._bin_labels
    assert [name.title() for name in catalogue.class_names("coarse")] == both[1].bin_classes
    row = catalogue.keys.tolist().index(keys[0])
    assert catalogue.reader(row).tobytes() == both[0][0][0].tobytes()


def test_names_and_species(pets):
    catalogue = load_catalogue("oxford_pets", pets)
    assert catalogue.class_names("fine") == ("Barn Cat", "Barn Terrier", "Pug", "Zebra")
    assert catalogue.superclass_names("fine") == ("cat", "dog", "dog", "cat")
    assert catalogue.default_labels == "fine"
    assert not catalogue.publishable


def test_validation(pets):
    check_drawn_validation(partial(load_catalogue, "oxford_pets", pets), per_class=1)


def test_unreadable_pictures(pets):
    check_unreadable_pictures_are_named(load_catalogue("oxford_pets", pets))


def test_a_picture_that_is_no_jpeg_in_spite_of_its_name(pets):
    """Some files of the real data set are GIF and PNG."""
    catalogue = load_catalogue("oxford_pets", pets)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(pets / catalogue.keys[0], format="GIF")
    assert catalogue.reader(0).size == (7, 5)


@pytest.mark.parametrize("missing", ["images", "annotations/trainval.txt", "annotations/test.txt"])
def test_missing_part_gives_path_way_and_size(pets, missing):
    path = pets / "oxford-iiit-pet" / missing
    path.rename(pets / "aside")
    with pytest.raises(UserError, match=r"OxfordIIITPet\(ROOT, download=True\).*810 MB") as caught:
        load_catalogue("oxford_pets", pets)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pug_7 3 2", r"test\.txt: expected a class, 1 or 2 for the species.*after pug_7, got '3 2'"),
        ("pug_7 3 4 2", "got '3 4 2'"),
        ("pug_7 x 2 2", "got 'x 2 2'"),
        ("pug_7", "line 9: expected a new id and its value, got 'pug_7'"),
        ("cat_7 3 2 2", "Class 3 has two names, Pug and Cat"),
        ("pug_7 3 1 2", "Class 3 has two species, dog and cat"),
        ("owl_7 6 2 2", "without a gap"),
        ("Pug_7 5 1 3", "two classes named 'Pug'"),
        ("pug_1 3 2 2", r"pug_1\.jpg more than once"),
    ],
)
def test_damaged_lists_are_named(pets, line, message):
    with (pets / "oxford-iiit-pet" / "annotations" / "test.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        load_catalogue("oxford_pets", pets)


def test_a_list_that_is_no_text_is_named(pets):
    path = pets / "oxford-iiit-pet" / "annotations" / "test.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"test\.txt is not a text file"):
        load_catalogue("oxford_pets", pets)
