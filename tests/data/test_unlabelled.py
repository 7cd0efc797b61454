from __future__ import annotations

import logging
import os

import numpy as np
import pytest

from fgdemo.data import ImageSplit, load_catalogue
from fgdemo.data.unlabelled import ALL, picture_folder, without_labels
from fgdemo.errors import UserError


def test_every_picture_below_a_folder_is_one_of_one_class(tmp_path, write_picture):
    for name in ("z.png", "a/1.png", "a/b/2.JPG", "val/3.png", ".hidden/4.png", "a/.5.png"):
        write_picture(tmp_path / name)
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    catalogue = picture_folder(tmp_path)
    assert catalogue.keys.tolist() == ["a/1.png", "a/b/2.JPG", "val/3.png", "z.png"]
    assert (catalogue.split == "train").all()
    assert catalogue.class_names("fine") == catalogue.superclass_names("fine") == (ALL,)
    assert catalogue.publishable
    assert ImageSplit(catalogue, "train")[3].key == "z.png"


def test_names_that_are_not_unicode_are_left_out_and_reported(tmp_path, write_picture, caplog):
    write_picture(tmp_path / "good.png")
    try:
        with open(os.fsencode(tmp_path) + b"/bad\xff.png", "wb"):
            pass
    except OSError:
        pytest.skip("this file system has Unicode names alone")
    with caplog.at_level(logging.WARNING):
        assert picture_folder(tmp_path).keys.tolist() == ["good.png"]
    assert "1 files are left out" in caplog.text


def test_folders_without_pictures_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"No pictures found in .*\.jpg"):
        picture_folder(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        picture_folder(tmp_path / "missing")


def test_labels_of_a_data_set_can_be_set_aside():
    digits = load_catalogue("digits")
    plain = without_labels(digits)
    assert plain.class_names("fine") == (ALL,)
    assert not plain.fine.any()
    assert np.array_equal(plain.keys, digits.keys)
    assert np.array_equal(plain.split, digits.split)
    assert digits.fine.any()
