from __future__ import annotations

import numpy as np
import pytest

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError

HEADER = (
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),"
    "Iconic Image Path (str),Product Description Path (str)\n"
)


@pytest.fixture
def groceries(tmp_path, write_picture):
    """Three fine classes in two coarse ones: 20 pictures each in train, 2 in val, 3 in test."""
    folder = tmp_path / "dataset"
    classes = [("Gala", 0, "Apple", 0), ("Fuji", 1, "Apple", 0), ("Lime", 2, "Lime", 1)]
    folder.mkdir()
    rows = "".join(f"{n},{f},{c},{k},/icon.jpg,/text.txt\n" for n, f, c, k in reversed(classes))
    (folder / "classes.csv").write_text(HEADER + rows)
    for split, n in (("train", 20), ("val", 2), ("test", 3)):
        lines = []
        for name, fine, parent, coarse in classes:
            for i in range(n):
                path = f"{split}/Fruit/{parent}/{name}/{name}_{i:03d}.jpg"
                lines.append(f"{path}, {fine}, {coarse}\n")
        write_picture(folder / path)
        (folder / f"{split}.txt").write_text("".join(lines))
    return tmp_path


def test_validation_is_a_stratified_part_of_train_and_val(groceries):
    catalogue = load_catalogue("grocery_store", groceries)
    assert len(catalogue) == 75
    assert len(catalogue.rows("val")) == round(0.15 * 66)
    per_class = np.bincount(catalogue.fine[catalogue.rows("val")])
    assert set(per_class.tolist()) <= {3, 4}
    test_keys = catalogue.keys[catalogue.rows("test")]
    assert all(key.startswith("dataset/test/") for key in test_keys)
    assert len(test_keys) == 9
    assert any(key.startswith("dataset/val/") for key in catalogue.keys[catalogue.rows("train")])


def test_seed_and_fraction_decide_validation_but_not_test(groceries):
    a, b = (load_catalogue("grocery_store", groceries, seed=s, val_fraction=0.3) for s in (0, 1))
    assert len(a.rows("val")) == 20
    assert not np.array_equal(a.rows("val"), b.rows("val"))
    assert np.array_equal(a.rows("test"), b.rows("test"))
    assert np.array_equal(a.keys, b.keys)


def test_hierarchy_comes_from_the_table(groceries):
    catalogue = load_catalogue("grocery_store", groceries)
    assert catalogue.class_names("fine") == ("Gala", "Fuji", "Lime")
    assert catalogue.class_names("coarse") == ("Apple", "Lime")
    assert catalogue.superclass_names("fine") == ("Apple", "Apple", "Lime")
    assert np.array_equal(catalogue.coarse, (catalogue.fine == 2).astype(int))
    assert catalogue.default_labels == "fine"
    assert not catalogue.publishable


def test_pictures_are_read(groceries):
    catalogue = load_catalogue("grocery_store", groceries)
    row = catalogue.keys.tolist().index("dataset/test/Fruit/Lime/Lime/Lime_002.jpg")
    assert catalogue.reader(row).size == (12, 10)


@pytest.mark.parametrize("missing", ["train.txt", "val.txt", "test.txt", "classes.csv"])
def test_missing_part_gives_path_way_and_size(groceries, missing):
    path = groceries / "dataset" / missing
    path.unlink()
    with pytest.raises(UserError, match=r"git clone .*GroceryStoreDataset.*120 MB") as caught:
        load_catalogue("grocery_store", groceries)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train.txt", "train/a.jpg, 0, 0\ntrain/b.jpg 1\n", "line 2"),
        ("train.txt", "train/a.jpg, 7, 0\n", "name classes that"),
        ("train.txt", "train/a.jpg, 0, 1\n", "contradict"),
        ("classes.csv", "a,b\n1,2\n", "not the class table"),
        ("classes.csv", HEADER + "Gala,0\n", "not the class table"),
        ("classes.csv", HEADER + "Gala,5,Apple,0,,\n", "not the class table"),
    ],
)
def test_damaged_lists_are_named(groceries, file, text, message):
    (groceries / "dataset" / file).write_text(text)
    with pytest.raises(UserError, match=message):
        load_catalogue("grocery_store", groceries)
