from __future__ import annotations

import pytest

from fgdemo.data.registry import dataset_names, load_catalogue, load_dataset, register
from fgdemo.errors import UserError


def test_names_are_sorted_and_complete():
    names = dataset_names()
    assert names == sorted(names)
    assert {"digits", "imagefolder", "flowers102", "grocery_store"} <= set(names)


def test_duplicate_registration_raises():
    dataset_names()
    with pytest.raises(ValueError, match="digits"):
        register("digits")(lambda root, *, seed: None)


def test_unknown_name_offers_a_close_one():
    with pytest.raises(UserError, match="Did you mean flowers102"):
        load_catalogue("flower102")


@pytest.mark.parametrize("option", ["val_fraction", "test_fraction"])
def test_option_that_a_data_set_lacks_is_refused(option):
    with pytest.raises(UserError, match=f"digits has no option {option}"):
        load_catalogue("digits", **{option: 0.2})


def test_superclasses_are_refused_where_there_is_no_choice(tmp_path):
    with pytest.raises(UserError, match="imagefolder has no option superclasses"):
        load_catalogue("imagefolder", tmp_path, superclasses="parity")


def test_load_dataset_passes_everything_on():
    split = load_dataset("digits", split="val", labels="coarse", superclasses="magnitude", cache=True)
    assert len(split) == 270
    assert split.class_names == ("low", "high")
    sample = split[5]
    digit = split.catalogue.fine[sample.index]
    assert sample.label == int(digit >= 5)
    assert sample.key == split.catalogue.keys[sample.index]
