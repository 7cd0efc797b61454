from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.hierarchy import Hierarchy
from fgdemo.errors import UserError


def make(**changes) -> Catalogue:
    values = {
        "name": "toy",
        "root": None,
        "keys": ["k0", "k1", "k2", "k3"],
        "fine": [0, 1, 2, 1],
        "coarse": [0, 0, 1, 0],
        "split": ["train", "val", "train", "train"],
        "hierarchy": Hierarchy(("a", "b", "c"), ("x", "y"), np.array([0, 0, 1])),
        "default_labels": "fine",
        "reader": lambda index: Image.new("RGB", (4, 4)),
    }
    return Catalogue(**(values | changes))


def test_levels_and_rows():
    catalogue = make()
    assert len(catalogue) == 4
    assert catalogue.targets("fine").tolist() == [0, 1, 2, 1]
    assert catalogue.targets("coarse").tolist() == [0, 0, 1, 0]
    assert catalogue.targets("coarse").dtype == np.int64
    assert catalogue.class_names("coarse") == ("x", "y")
    assert catalogue.superclass_names("fine") == ("x", "x", "y")
    assert catalogue.superclass_names("coarse") == ("x", "y")
    assert catalogue.rows("train").tolist() == [0, 2, 3]
    assert catalogue.rows("test").tolist() == []


@pytest.mark.parametrize("call", ["targets", "class_names", "superclass_names", "rows"])
def test_unknown_level_or_split_is_named(call):
    with pytest.raises(UserError, match="'medium'"):
        getattr(make(), call)("medium")


@pytest.mark.parametrize(
    "changes",
    [
        {"fine": [0, 1]},
        {"coarse": [1, 0, 1, 0]},
        {"split": ["train", "val", "train", "dev"]},
        {"truth": {"subclass": np.zeros(3)}},
    ],
)
def test_inconsistent_columns_are_refused(changes):
    with pytest.raises(ValueError, match="toy"):
        make(**changes)


def test_validation_pictures_join_the_training_ones():
    joined = make().with_val_in_train()
    assert joined.rows("train").tolist() == [0, 1, 2, 3]
    assert joined.rows("val").tolist() == []
    with pytest.raises(UserError, match="--include-val"):
        joined.with_val_in_train()
