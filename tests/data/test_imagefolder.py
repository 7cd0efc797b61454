from __future__ import annotations

import logging
import os

import numpy as np
import pytest

from fgdemo.data.image_split import ImageSplit
from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError


def counts(catalogue) -> dict[str, int]:
    return {split: len(catalogue.rows(split)) for split in ("train", "val", "test")}


@pytest.fixture
def folder(tmp_path, write_picture):
    """Make empty-file pictures by default: a scan decodes nothing."""

    def make(*paths: str, real: bool = False):
        for name in paths:
            path = tmp_path / "data" / name
            if real:
                write_picture(path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return tmp_path / "data"

    return make


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_split_folders(folder, val):
    root = folder("train/b/1.JPG", "train/a/2.jpeg", "train/a/1.png", f"{val}/a/x.webp", "test/b/y.tiff")
    catalogue = load_catalogue("imagefolder", root)
    assert catalogue.hierarchy.fine_names == ("a", "b")
    assert catalogue.hierarchy.is_flat
    by_key = dict(zip(catalogue.keys.tolist(), zip(catalogue.split, catalogue.fine, strict=True), strict=True))
    assert by_key == {
        "train/a/1.png": ("train", 0),
        "train/a/2.jpeg": ("train", 0),
        "train/b/1.JPG": ("train", 1),
        f"{val}/a/x.webp": ("val", 0),
        "test/b/y.tiff": ("test", 1),
    }
    assert catalogue.publishable


def test_flat_folder_is_split_by_seed(folder):
    root = folder(*(f"{c}/{i}.png" for c in "abcd" for i in range(25)))
    catalogue = load_catalogue("imagefolder", root)
    assert counts(catalogue) == {"train": 90, "val": 10, "test": 0}
    other = load_catalogue("imagefolder", root, seed=1)
    assert np.array_equal(catalogue.keys, other.keys)
    assert not np.array_equal(catalogue.split, other.split)
    assert counts(load_catalogue("imagefolder", root, val_fraction=0.2))["val"] == 20
    assert counts(load_catalogue("imagefolder", root, val_fraction=0.0))["val"] == 0
    with pytest.raises(UserError, match=r"data has no pictures in its test split"):
        ImageSplit(catalogue, "test")


def test_test_split_is_drawn_only_if_asked_and_stays_whatever_the_seed(folder):
    root = folder(*(f"{c}/{i}.png" for c in "abcd" for i in range(25)))
    a, b = (load_catalogue("imagefolder", root, seed=s, test_fraction=0.2) for s in (0, 1))
    assert counts(a) == {"train": 72, "val": 8, "test": 20}
    assert np.array_equal(a.rows("test"), b.rows("test"))
    assert not np.array_equal(a.rows("val"), b.rows("val"))


def test_class_with_one_picture_stays_in_training(folder):
    root = folder("rare/1.png", *(f"common/{i}.png" for i in range(40)))
    catalogue = load_catalogue("imagefolder", root, val_fraction=0.5, test_fraction=0.2)
    rare = catalogue.keys == "rare/1.png"
    assert catalogue.split[rare].tolist() == ["train"]


def test_nested_folders_are_a_hierarchy(folder):
    names = ["bird/owl", "bird/tern", "fish/ray", "fish/eel"]
    root = folder(*(f"train/{c}/{i}.png" for c in names for i in range(2)), "test/fish/eel/deep/9.png")
    catalogue = load_catalogue("imagefolder", root)
    assert catalogue.hierarchy.coarse_names == ("bird", "fish")
    assert catalogue.hierarchy.fine_names == ("owl", "tern", "eel", "ray")
    assert catalogue.superclass_names("fine") == ("bird", "bird", "fish", "fish")
    deep = np.flatnonzero(catalogue.keys == "test/fish/eel/deep/9.png")
    assert catalogue.fine[deep].tolist() == [2]


def test_ambiguous_inner_names_carry_the_outer_one(folder):
    root = folder("train/a/x/1.png", "train/b/x/1.png", "train/b/y/1.png")
    assert load_catalogue("imagefolder", root).hierarchy.fine_names == ("a/x", "b/x", "y")


def test_mixed_depths_are_flat_classes(folder):
    root = folder("a/1.png", "a/more/2.png", "b/sub/3.png")
    catalogue = load_catalogue("imagefolder", root, val_fraction=0.0)
    assert catalogue.hierarchy.fine_names == ("a", "b")
    assert catalogue.hierarchy.is_flat
    assert catalogue.fine.tolist() == [0, 0, 1]


def test_hidden_and_foreign_files_are_ignored_and_links_followed_without_loops(folder):
    root = folder("a/1.png", "a/.hidden.png", "a/notes.txt", ".git/x/1.png", "b/1.png", "loose.png")
    (root / "a" / "again").symlink_to(root / "a", target_is_directory=True)
    (root / "b" / "up").symlink_to(root, target_is_directory=True)
    (root / "c").symlink_to(folder("../elsewhere/1.png").parent / "elsewhere", target_is_directory=True)
    (root / "b" / "broken.png").symlink_to(root / "nowhere.png")
    catalogue = load_catalogue("imagefolder", root, val_fraction=0.0)
    keys = set(catalogue.keys.tolist())
    assert {"a/1.png", "b/1.png", "c/1.png"} <= keys
    assert not any(".hidden" in key or ".git" in key or "broken" in key for key in keys)
    assert sum(key.startswith("a/") for key in keys) == 1


def test_empty_classes_and_case_twins_are_reported(folder, caplog):
    root = folder("Cat/1.png", "cat/1.png", "dog/1.png")
    (root / "void").mkdir()
    with caplog.at_level(logging.WARNING):
        catalogue = load_catalogue("imagefolder", root)
    assert catalogue.hierarchy.fine_names == ("Cat", "cat", "dog")
    assert "1 folders hold no pictures: void" in caplog.text
    assert "case only: Cat, cat" in caplog.text


def test_names_that_are_not_unicode_are_left_out_and_reported(folder, caplog):
    root = folder("a/1.png")
    with open(os.fsencode(root) + b"/a/\xff.png", "wb"):
        pass
    catalogue = load_catalogue("imagefolder", root)
    assert catalogue.keys.tolist() == ["a/1.png"]
    assert "not Unicode" in caplog.text


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((), "No pictures found in"),
        (("a/notes.txt",), "No pictures found in"),
        (("val/a/1.png",), "has val but no train folder"),
        (("train/a/1.png", "val/b/1.png"), "1 classes have no pictures in .*train: b"),
        (("train/a/1.png", "val/a/1.png", "valid/a/1.png"), "both the val split"),
    ],
)
def test_unusable_folders_are_refused_by_path(folder, paths, message):
    root = folder(*paths)
    root.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=message) as caught:
        load_catalogue("imagefolder", root)
    assert str(root) in str(caught.value)


def test_missing_root(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder.*ROOT/train/CLASS"):
        load_catalogue("imagefolder", tmp_path / "nowhere")
    with pytest.raises(UserError, match="needs the folder"):
        load_catalogue("imagefolder")


def test_many_classes(tmp_path):
    for i in range(10_500):
        (tmp_path / f"{i:05d}").mkdir()
        (tmp_path / f"{i:05d}" / "1.png").touch()
    catalogue = load_catalogue("imagefolder", tmp_path)
    assert len(catalogue.class_names("fine")) == len(catalogue) == 10_500
    assert counts(catalogue)["val"] == 0


def test_pictures_are_read(folder):
    root = folder("train/a/1.png", "train/b/2.png", real=True)
    catalogue = load_catalogue("imagefolder", root)
    assert catalogue.reader(1).size == (12, 10)
