from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.io import savemat
from support.photographs import check_drawn_validation, check_unreadable_pictures_are_named, fine_labels

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError

NAMES = ("AM General Mule SUV 2000", "Aston Martin V9 Coupe 2012", "Audi X Coupe 2012", "Audi X ZR1 2012")
FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")


def write_annotations(path, labels: list[int], first: int = 1) -> list[str]:
    """A row of structures as MATLAB wrote it; the pictures are numbered from ``first``."""
    rows = [
        (np.uint16(1), np.uint16(2), np.uint16(30), np.uint16(40), np.uint8(label), f"{i:05d}.jpg")
        for i, label in enumerate(labels, first)
    ]
    savemat(path, {"annotations": np.array([rows], dtype=[(field, object) for field in FIELDS])})
    return [row[-1] for row in rows]


def write_classes(root, names) -> None:
    cells = np.array(names, dtype=object)[None]
    savemat(root / "stanford_cars" / "devkit" / "cars_meta.mat", {"class_names": cells})


@pytest.fixture
def cars(tmp_path, write_picture):
    """Four classes of ten training and two test pictures in torchvision's layout."""
    folder = tmp_path / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    write_classes(tmp_path, NAMES)
    for file, pictures, labels in (
        ("devkit/cars_train_annos.mat", "cars_train", [3, 1, 4, 2] * 10),
        ("cars_test_annos_withlabels.mat", "cars_test", [2, 1, 4, 3] * 2),
    ):
        for name in write_annotations(folder / file, labels):
            write_picture(folder / pictures / name)
    return tmp_path


@pytest.mark.parametrize(("theirs", "splits"), [("train", ("train", "val")), ("test", ("test",))])
def test_agrees_with_torchvision(cars, theirs, splits):
    from torchvision.datasets import StanfordCars

    catalogue = load_catalogue("stanford_cars", cars)
    oracle = StanfordCars(cars, split=theirs)
    expected = {path.removeprefix(f"{cars}/"): label for path, label in oracle._samples}
    assert fine_labels(catalogue, *splits) == expected
    assert list(catalogue.class_names("fine")) == oracle.classes
    row = catalogue.keys.tolist().index(f"stanford_cars/cars_{theirs}/00001.jpg")
    assert catalogue.reader(row).tobytes() == oracle[0][0].tobytes()


def test_coarse_classes_are_the_makers(cars):
    catalogue = load_catalogue("stanford_cars", cars)
    assert catalogue.class_names("fine") == NAMES
    assert catalogue.class_names("coarse") == ("AM General", "Aston Martin", "Audi")
    assert catalogue.superclass_names("fine") == ("AM General", "Aston Martin", "Audi", "Audi")
    assert catalogue.default_labels == "fine"
    assert not catalogue.publishable


def test_validation(cars):
    check_drawn_validation(partial(load_catalogue, "stanford_cars", cars), per_class=1)


def test_unreadable_pictures(cars):
    check_unreadable_pictures_are_named(load_catalogue("stanford_cars", cars))


@pytest.mark.parametrize(
    "missing",
    [
        "cars_train",
        "cars_test",
        "devkit/cars_meta.mat",
        "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat",
    ],
)
def test_missing_part_gives_path_way_and_size(cars, missing):
    path = cars / "stanford_cars" / missing
    path.rename(cars / "aside")
    with pytest.raises(UserError, match=r"2 GB, into the layout of torchvision\.datasets\.StanfordCars") as caught:
        load_catalogue("stanford_cars", cars)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("label", [0, 5])
def test_labels_out_of_range(cars, label):
    write_annotations(cars / "stanford_cars" / "cars_test_annos_withlabels.mat", [1, label])
    with pytest.raises(UserError, match=r"name classes that .*cars_meta\.mat does not have"):
        load_catalogue("stanford_cars", cars)


def test_test_annotations_without_labels_are_named(cars):
    """The devkit's own list of test pictures has no classes."""
    path = cars / "stanford_cars" / "cars_test_annos_withlabels.mat"
    rows = [(np.uint16(1), "00001.jpg"), (np.uint16(1), "00002.jpg")]
    savemat(path, {"annotations": np.array([rows], dtype=[("bbox_x1", object), ("fname", object)])})
    with pytest.raises(UserError, match=r"withlabels\.mat is damaged or has no .*field 'class'"):
        load_catalogue("stanford_cars", cars)


def test_classes_of_the_same_name_and_names_that_are_none(cars):
    write_classes(cars, [*NAMES[:3], NAMES[2]])
    with pytest.raises(UserError, match="two classes named 'Audi X Coupe 2012'"):
        load_catalogue("stanford_cars", cars)
    write_classes(cars, [*NAMES[:3], np.array([1.0, 2.0])])
    with pytest.raises(UserError, match=r"cars_meta\.mat: 'class_names' holds something else than strings"):
        load_catalogue("stanford_cars", cars)
