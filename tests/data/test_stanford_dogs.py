from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.io import savemat
from support.photographs import check_drawn_validation, check_unreadable_pictures_are_named, fine_labels

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError

FOLDERS = ("n02000001-Mudhound", "n02000002-soft-coated_fox_terrier", "n02000003-Grey_pointer")


def write_list(root, name: str, paths: list[str], labels: list[int]) -> None:
    """Columns of cells and of doubles, as MATLAB wrote them."""
    cells = np.array(paths, dtype=object)[:, None]
    savemat(root / name, {"file_list": cells, "annotation_list": cells, "labels": np.array(labels, float)[:, None]})


@pytest.fixture
def dogs(tmp_path, write_picture):
    """Three breeds of ten training and two test pictures, as the archives unpack."""
    for name, numbers in (("train_list.mat", range(10)), ("test_list.mat", range(10, 12))):
        paths = [f"{folder}/{folder[:9]}_{i}.jpg" for folder in FOLDERS for i in numbers]
        for path in paths:
            write_picture(tmp_path / "Images" / path)
        write_list(tmp_path, name, paths, np.repeat([1, 2, 3], len(numbers)).tolist())
    return tmp_path


def test_official_test_split_and_labels(dogs):
    catalogue = load_catalogue("stanford_dogs", dogs)
    for splits, numbers in ((("train", "val"), range(10)), (("test",), range(10, 12))):
        expected = {f"Images/{f}/{f[:9]}_{i}.jpg": c for c, f in enumerate(FOLDERS) for i in numbers}
        assert fine_labels(catalogue, *splits) == expected
    assert catalogue.class_names("fine") == ("Mudhound", "soft-coated fox terrier", "Grey pointer")
    assert catalogue.hierarchy.is_flat
    assert catalogue.reader(35).size == (12, 10)
    assert not catalogue.publishable


def test_validation(dogs):
    check_drawn_validation(partial(load_catalogue, "stanford_dogs", dogs), per_class=1)


def test_unreadable_pictures(dogs):
    check_unreadable_pictures_are_named(load_catalogue("stanford_dogs", dogs))


@pytest.mark.parametrize("missing", ["Images", "train_list.mat", "test_list.mat"])
def test_missing_part_gives_path_way_and_size(dogs, missing):
    path = dogs / missing
    path.rename(dogs / "aside")
    with pytest.raises(UserError, match=r"760 MB, from http://vision\.stanford\.edu/aditya86") as caught:
        load_catalogue("stanford_dogs", dogs)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("paths", "labels", "message"),
    [
        ([f"{FOLDERS[0]}/a.jpg"], [2], "Class 2 has two names, soft-coated fox terrier and Mudhound"),
        ([f"{FOLDERS[0]}/a.jpg"], [1, 1], "not as many labels as pictures"),
        ([f"{FOLDERS[0]}/a.jpg"], [5], "without a gap"),
        ([f"{FOLDERS[0]}/a.jpg"], [0], "without a gap"),
        ([f"{FOLDERS[0]}/a.jpg"], [1.5], "numbers that are not whole"),
        (["n02000009-Mudhound/a.jpg"], [4], "two classes named 'Mudhound'"),
        ([f"{FOLDERS[0]}/n02000001_0.jpg"], [1], r"n02000001_0\.jpg more than once"),
    ],
)
def test_contradictions_are_named(dogs, paths, labels, message):
    write_list(dogs, "test_list.mat", paths, labels)
    with pytest.raises(UserError, match=message):
        load_catalogue("stanford_dogs", dogs)
