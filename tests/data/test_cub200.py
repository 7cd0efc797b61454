from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from support.photographs import (
    check_drawn_validation,
    check_unreadable_pictures_are_named,
    fine_labels,
    write_image_tables,
)

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError

NAMES = {1: "001.Red_footed_Gull", 2: "002.Bobbin", 3: "003.Small_Gull", 4: "004.Le_Brun_Wren"}


@pytest.fixture
def cub(tmp_path, write_picture):
    """Four classes of ten training and two test pictures, as the archive unpacks."""
    folder = tmp_path / "CUB_200_2011"
    pictures = {}
    for class_id, name in NAMES.items():
        for i in range(12):
            path = f"{name}/{name[4:]}_{i:04d}_{class_id}.jpg"
            pictures[str(len(pictures) + 1)] = (path, class_id, i % 6 != 5)
            write_picture(folder / "images" / path)
    write_image_tables(folder, pictures, NAMES)
    return tmp_path


def test_official_test_split_and_labels(cub):
    catalogue = load_catalogue("cub200", cub)
    folder = cub / "CUB_200_2011"
    tables = (np.loadtxt(folder / f"{name}.txt", dtype=str) for name in ("images", "image_class_labels"))
    paths, ids = (dict(table.tolist()) for table in tables)
    training = dict(np.loadtxt(folder / "train_test_split.txt", dtype=str).tolist())
    for flag, splits in (("1", ("train", "val")), ("0", ("test",))):
        expected = {f"CUB_200_2011/images/{paths[k]}": int(ids[k]) - 1 for k in paths if training[k] == flag}
        assert fine_labels(catalogue, *splits) == expected
    assert catalogue.keys.tolist() == [f"CUB_200_2011/images/{path}" for path in paths.values()]
    assert catalogue.reader(47).size == (12, 10)
    assert not catalogue.publishable


def test_validation(cub):
    check_drawn_validation(partial(load_catalogue, "cub200", cub), per_class=1)


def test_coarse_classes_are_the_last_words_of_the_names(cub):
    catalogue = load_catalogue("cub200", cub)
    assert catalogue.class_names("fine") == ("Red footed Gull", "Bobbin", "Small Gull", "Le Brun Wren")
    assert catalogue.class_names("coarse") == ("Bobbin", "Gull", "Wren")
    assert catalogue.superclass_names("fine") == ("Gull", "Bobbin", "Gull", "Wren")
    assert catalogue.default_labels == "fine"


def test_a_class_without_pictures_keeps_its_number(cub):
    table = cub / "CUB_200_2011" / "classes.txt"
    table.write_text(table.read_text().replace("4 004.", "5 005.") + "4 004.Old_Wren\n")
    labels = cub / "CUB_200_2011" / "image_class_labels.txt"
    labels.write_text(labels.read_text().replace(" 4\n", " 5\n"))
    catalogue = load_catalogue("cub200", cub)
    assert catalogue.class_names("fine")[3:] == ("Old Wren", "Le Brun Wren")
    assert set(catalogue.fine.tolist()) == {0, 1, 2, 4}


def test_unreadable_pictures(cub):
    check_unreadable_pictures_are_named(load_catalogue("cub200", cub))


@pytest.mark.parametrize(
    "missing", ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "images"]
)
def test_missing_part_gives_path_way_and_size(cub, missing):
    path = cub / "CUB_200_2011" / missing
    path.rename(cub / "aside")
    with pytest.raises(UserError, match=r"1\.1 GB, from https://www\.vision\.caltech\.edu") as caught:
        load_catalogue("cub200", cub)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "add", "message"),
    [
        ("images.txt", "99 a.jpg\n", r"image_class_labels\.txt and images\.txt disagree about picture 99"),
        ("image_class_labels.txt", "99 1\n", r"image_class_labels\.txt and images\.txt disagree about picture 99"),
        ("train_test_split.txt", "99 1\n", r"train_test_split\.txt and images\.txt disagree about picture 99"),
        ("classes.txt", "five 005.Owl\n", r"classes\.txt: 'five' is not the number of a class"),
        ("classes.txt", "5 005.Bobbin\n", "two classes named 'Bobbin'"),
    ],
)
def test_tables_that_disagree_are_named(cub, file, add, message):
    with (cub / "CUB_200_2011" / file).open("a") as table:
        table.write(add)
    with pytest.raises(UserError, match=message):
        load_catalogue("cub200", cub)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("image_class_labels.txt", "\n1 1\n", "\n1 7\n", "picture 1 has class 7, which classes"),
        ("image_class_labels.txt", "\n1 1\n", "\n1 one\n", "expected a whole number after 1, got 'one'"),
        ("train_test_split.txt", "\n1 1\n", "\n1 2\n", "expected 1 for training or 0 for testing after 1, got 2"),
        ("images.txt", "\n2 ", "\n1 ", "line 2: expected a new id"),
        ("images.txt", "_0001_1.jpg", "_0000_1.jpg", r"_0000_1\.jpg more than once"),
    ],
)
def test_damaged_tables_are_named(cub, file, old, new, message):
    table = cub / "CUB_200_2011" / file
    assert table.read_text().count(old) == 1
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        load_catalogue("cub200", cub)
