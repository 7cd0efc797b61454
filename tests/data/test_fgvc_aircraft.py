from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image
from support.photographs import check_unreadable_pictures_are_named, fine_labels

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError

# Variant, family and manufacturer; the lists of classes are in the order of their names.
TYPES = (
    ("100-A", "Kite 100", "Kite"),
    ("100-B", "Kite 100", "Kite"),
    ("F-9A/B", "F-9", "Falcon Works"),
    ("Glider 2", "Glider", "Kite"),
)
LEVELS = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}
SIZES = {"train": 3, "val": 2, "test": 4}
PARTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}


@pytest.fixture
def aircraft(tmp_path, write_picture):
    """Four variants with three, two and four pictures in the splits, in torchvision's layout."""
    data = tmp_path / "fgvc-aircraft-2013b" / "data"
    rows = []
    for split, n in SIZES.items():
        for names in TYPES * n:
            picture = f"{len(rows) * 7919 % 10_000:07d}"
            rows.append((picture, split, names))
            write_picture(data / "images" / f"{picture}.jpg", size=(12, 30))
    for level, (singular, plural) in enumerate(LEVELS.items()):
        classes = sorted({names[level] for names in TYPES})
        (data / f"{plural}.txt").write_text("".join(f"{name}\n" for name in classes))
        for part, splits in PARTS.items():
            lines = [f"{picture} {names[level]}\n" for picture, split, names in rows if split in splits]
            (data / f"images_{singular}_{part}.txt").write_text("".join(lines))
    return tmp_path


@pytest.mark.parametrize(("theirs", "splits"), PARTS.items())
def test_agrees_with_torchvision(aircraft, theirs, splits):
    from torchvision.datasets import FGVCAircraft

    catalogue = load_catalogue("fgvc_aircraft", aircraft, seed=4)
    oracle = FGVCAircraft(aircraft, split=theirs)
    keys = [path.removeprefix(f"{aircraft}/") for path in oracle._image_files]
    assert fine_labels(catalogue, *splits) == dict(zip(keys, oracle._labels, strict=True))
    assert list(catalogue.class_names("fine")) == oracle.classes
    row_of = {key: row for row, key in enumerate(catalogue.keys.tolist())}
    for level in ("family", "manufacturer"):
        oracle = FGVCAircraft(aircraft, split=theirs, annotation_level=level)
        ours = load_catalogue("fgvc_aircraft", aircraft, superclasses=level)
        names = [ours.class_names("coarse")[ours.coarse[row_of[key]]] for key in keys]
        assert names == [oracle.classes[label] for label in oracle._labels]


def test_families_unless_manufacturers_are_asked_for(aircraft):
    catalogue = load_catalogue("fgvc_aircraft", aircraft)
    assert catalogue.class_names("coarse") == ("F-9", "Glider", "Kite 100")
    assert catalogue.superclass_names("fine") == ("Kite 100", "Kite 100", "F-9", "Glider")
    makers = load_catalogue("fgvc_aircraft", aircraft, superclasses="manufacturer")
    assert makers.superclass_names("fine") == ("Kite", "Kite", "Falcon Works", "Kite")
    assert np.array_equal(makers.fine, catalogue.fine)
    assert catalogue.default_labels == "fine"
    assert not catalogue.publishable
    with pytest.raises(UserError, match="no superclasses 'model': choose one of family, manufacturer"):
        load_catalogue("fgvc_aircraft", aircraft, superclasses="model")


def test_the_official_validation_leaves_nothing_to_draw(aircraft):
    with pytest.raises(UserError, match="fgvc_aircraft has no option val_fraction"):
        load_catalogue("fgvc_aircraft", aircraft, val_fraction=0.1)


def test_the_banner_is_left_out(aircraft):
    catalogue = load_catalogue("fgvc_aircraft", aircraft)
    reader = pickle.loads(pickle.dumps(catalogue.reader))
    with Image.open(aircraft / catalogue.keys[5]) as whole:
        kept = np.asarray(whole.convert("RGB"))[:10]
    assert np.array_equal(np.asarray(reader(5)), kept)


def test_a_picture_as_low_as_the_banner_is_named(aircraft, write_picture):
    catalogue = load_catalogue("fgvc_aircraft", aircraft)
    write_picture(aircraft / catalogue.keys[5], size=(12, 20))
    with pytest.raises(UserError, match=rf"{catalogue.keys[5]} is no picture of FGVC-Aircraft"):
        catalogue.reader(5)
    write_picture(aircraft / catalogue.keys[5], size=(12, 21))
    assert catalogue.reader(5).size == (12, 1)


def test_unreadable_pictures(aircraft):
    check_unreadable_pictures_are_named(load_catalogue("fgvc_aircraft", aircraft))


@pytest.mark.parametrize(
    "missing", ["images", "variants.txt", "images_variant_val.txt", "images_family_train.txt", "images_family_test.txt"]
)
def test_missing_part_gives_path_way_and_size(aircraft, missing):
    path = aircraft / "fgvc-aircraft-2013b" / "data" / missing
    path.rename(aircraft / "aside")
    with pytest.raises(UserError, match=r"FGVCAircraft\(ROOT, download=True\).*2\.75 GB") as caught:
        load_catalogue("fgvc_aircraft", aircraft)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("add", "message"),
    [
        ({"images_family_val.txt": "1 Kite 100"}, "do not list the same pictures"),
        ({"images_family_val.txt": "1 F-9", "images_variant_val.txt": "1 100-C"}, "does not have the variant '100-C'"),
        ({"images_family_val.txt": "1 F-9", "images_variant_val.txt": "1 100-B"}, "two names of a family, Kite 100"),
        ({"images_family_val.txt": "0000000 Kite 100", "images_variant_val.txt": "0000000 100-A"}, "more than once"),
        ({"variants.txt": "Zeppelin"}, "no picture shows the variant 'Zeppelin'"),
    ],
)
def test_contradictions_are_named(aircraft, add, message):
    for name, line in add.items():
        with (aircraft / "fgvc-aircraft-2013b" / "data" / name).open("a") as file:
            file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        load_catalogue("fgvc_aircraft", aircraft)
