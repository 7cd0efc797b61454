from __future__ import annotations

import inspect

import pytest

from fgdemo.data.registry import dataset_names, load_catalogue, load_dataset, load_training_catalogue, register
from fgdemo.errors import UserError
from train.options import DataOptions


def test_names_are_sorted_and_complete():
    names = dataset_names()
    assert names == sorted(names)
    published = "flowers102 grocery_store cub200 stanford_dogs oxford_pets nabirds stanford_cars fgvc_aircraft"
    larger = "plantnet300k df20 inaturalist places365"
    assert {"scenes", "digits", "imagefolder", *published.split(), *larger.split()} <= set(names)


def test_the_command_line_names_them_all():
    source = inspect.getsource(DataOptions)
    assert [name for name in dataset_names() if name not in source] == []


@pytest.mark.parametrize("name", sorted(set(dataset_names()) - {"digits", "scenes"}))
def test_data_that_have_to_be_fetched_need_a_folder(name, tmp_path):
    with pytest.raises(UserError, match=rf"Data set {name} needs the folder .*--data-root"):
        load_catalogue(name)
    with pytest.raises(UserError, match=rf"Data set {name} was not found: .*nowhere is not a folder"):
        load_catalogue(name, tmp_path / "nowhere")


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


def test_the_data_of_a_training_summary_are_split_as_they_were():
    plain = load_training_catalogue({"dataset": "digits", "seed": 3})
    joined = load_training_catalogue({"dataset": "digits", "seed": 3, "include_val": True})
    assert set(joined.rows("train")) == {*plain.rows("train"), *plain.rows("val")}
    assert (joined.rows("test") == plain.rows("test")).all()
