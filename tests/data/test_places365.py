from __future__ import annotations

from functools import partial

import pytest
from support.photographs import check_drawn_validation, check_unreadable_pictures_are_named, fine_labels
from torchvision.datasets import Places365

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError

# One name begins with another; the list of classes is not in the order of their numbers.
SCENES = ("/b/bar", "/b/bar_stool", "/c/church/indoor", "/c/church/outdoor")
SIDES = ("1", "1", "1", "2")
TRAIN, VAL = "places365_train_standard.txt", "places365_val.txt"


class Miniature(Places365):
    """torchvision's reader without its checksums of the official lists."""

    def _check_integrity(self, file: str, md5: str, download: bool) -> bool:
        return True


@pytest.fixture(params=["256", "large"])
def places(tmp_path, write_picture, request):
    """Four scenes of ten training pictures and two of the validation split, in either size."""
    training = [(f"{scene}/{i:08d}.jpg", label) for label, scene in enumerate(SCENES) for i in range(1, 11)]
    testing = [(f"Places365_val_{i + 1:08d}.jpg", i * 3 % 4) for i in range(8)]
    for picture, _ in training:
        write_picture(tmp_path / f"data_{request.param}_standard{picture}")
    for picture, _ in testing:
        write_picture(tmp_path / f"val_{request.param}" / picture)
    lists = {
        "categories_places365.txt": reversed([(scene, label) for label, scene in enumerate(SCENES)]),
        TRAIN: training,
        VAL: testing,
        "IO_places365.txt": zip(SCENES, SIDES, strict=True),
    }
    for name, rows in lists.items():
        (tmp_path / name).write_text("".join(f"{key} {value}\n" for key, value in rows))
    return tmp_path


@pytest.mark.parametrize(("theirs", "splits"), [("train-standard", ("train", "val")), ("val", ("test",))])
def test_agrees_with_torchvision(places, theirs, splits):
    catalogue = load_catalogue("places365", places)
    small = (places / "val_256").is_dir()
    oracle = Miniature(places, split=theirs, small=small)
    assert fine_labels(catalogue, *splits) == {path.removeprefix(f"{places}/"): i for path, i in oracle.imgs}
    numbers = {scene[3:].replace("_", " "): number for scene, number in oracle.class_to_idx.items()}
    assert list(catalogue.class_names("fine")) == sorted(numbers, key=numbers.__getitem__)
    assert catalogue.reader(41).size == (12, 10)
    assert not catalogue.publishable


def test_validation(places):
    check_drawn_validation(partial(load_catalogue, "places365", places, val_fraction=0.1), per_class=1)


def test_a_fiftieth_is_for_validation_unless_told(places):
    catalogue = load_catalogue("places365", places)
    assert len(catalogue.rows("val")) == round(40 / 50)
    assert len(catalogue.rows("test")) == 8


def test_coarse_classes_only_when_asked_for(places):
    plain = load_catalogue("places365", places)
    assert plain.class_names("fine") == ("bar", "bar stool", "church/indoor", "church/outdoor")
    assert plain.hierarchy.is_flat
    divided = load_catalogue("places365", places, superclasses="indoor_outdoor")
    assert divided.superclass_names("fine") == ("indoor", "indoor", "indoor", "outdoor")
    assert divided.class_names("fine") == plain.class_names("fine")
    assert divided.default_labels == "fine"
    with pytest.raises(UserError, match="places365 has no superclasses 'letter': choose one of indoor_outdoor"):
        load_catalogue("places365", places, superclasses="letter")


@pytest.mark.parametrize("text", ["", "/b/bar 1\n/b/bar_stool 3\n/c/church/indoor 1\n/c/church/outdoor 2\n"])
def test_indoor_and_outdoor_need_their_file(places, text):
    file = places / "IO_places365.txt"
    file.write_text(text)
    scene = "/b/bar_stool" if text else "/b/bar"
    with pytest.raises(UserError, match=rf"does not say 1 for indoors or 2 for outdoors of {scene}\."):
        load_catalogue("places365", places, superclasses="indoor_outdoor")
    file.unlink()
    with pytest.raises(UserError, match=r"IO_places365\.txt is missing\. Get IO_places365.*leave --superclasses out"):
        load_catalogue("places365", places, superclasses="indoor_outdoor")
    assert load_catalogue("places365", places).hierarchy.is_flat


def test_smaller_pictures_are_read_where_both_lie_there(places, write_picture):
    for file in [file for file in places.rglob("*.jpg") if "large" in str(file)]:
        write_picture(places / str(file.relative_to(places)).replace("large", "256"))
    catalogue = load_catalogue("places365", places)
    assert {key.split("/")[0] for key in catalogue.keys.tolist()} == {"data_256_standard", "val_256"}
    assert "(data_256_standard)" in catalogue.source


def test_unreadable_pictures(places):
    check_unreadable_pictures_are_named(load_catalogue("places365", places))


@pytest.mark.parametrize("missing", ["categories_places365.txt", TRAIN, VAL, "val_*"])
def test_missing_part_gives_path_way_and_size(places, missing):
    path = next(places.glob(missing))
    path.rename(places / "aside")
    with pytest.raises(
        UserError, match=r"Places365\(ROOT, split.*25 GB.*folders data_256_standard and val_256"
    ) as caught:
        load_catalogue("places365", places)
    assert str(path) in str(caught.value)


def test_no_folder_of_pictures(places):
    next(places.glob("data_*_standard")).rename(places / "aside")
    with pytest.raises(UserError, match=r"data_256_standard is missing\. Get it with torchvision"):
        load_catalogue("places365", places)


def test_an_archive_unpacked_in_part_is_noticed(places):
    train, val = next(places.glob("data_*_standard")), next(places.glob("val_*"))
    (val / "Places365_val_00000003.jpg").unlink()
    with pytest.raises(
        UserError, match=rf"in part: 1 of 8 listed entries .*{val.name}, the first is Places365_val_0+3"
    ):
        load_catalogue("places365", places)
    (train / "c/church/outdoor").rename(places / "aside")
    with pytest.raises(UserError, match=rf"in part: 1 of 4 .*{train.name}, the first is /c/church/outdoor\. Get it"):
        load_catalogue("places365", places)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("categories_places365.txt", "bar_stool 1", "bar_stool 9", "the classes are not numbered 0, 1, 2 and so on"),
        ("categories_places365.txt", "bar_stool 1", "bar_stool x", "expected a whole number after /b/bar_stool"),
        (TRAIN, "bar_stool/00000001.jpg 1", "bar_stool/00000001.jpg 0", r"bar_stool/00000001\.jpg is not of class 0"),
        (TRAIN, "bar_stool/00000001.jpg 1", "bar_stool/00000001.jpg 4", r"00000001\.jpg has class 4, which categories"),
        (TRAIN, "bar_stool/00000001.jpg 1", "bar_stool/00000001.jpg -1", r"00000001\.jpg has class -1, which"),
        (
            VAL,
            "Places365_val_00000001.jpg 0",
            "Places365_val_00000001.jpg " + "9" * 30,
            "expected a picture and the number",
        ),
        (TRAIN, "bar_stool/00000001.jpg 1", "bar_stool/00000001.jpg", "expected a picture and the number of its class"),
        (TRAIN, "outdoor/00000010.jpg 3\n", "outdoor/00000010.jpg", r"breaks off: .*/00000010\.jpg, has no class"),
        (TRAIN, "bar_stool/00000002.jpg 1", "bar_stool/00000001.jpg 1", r"bar_stool/00000001\.jpg more than once"),
        (VAL, "Places365_val_00000001.jpg 0", "Places365_val_00000001.jpg 365", "has class 365, which categories"),
    ],
)
def test_damaged_lists_are_named(places, file, old, new, message):
    path = places / file
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        load_catalogue("places365", places)


def test_an_empty_list_is_named(places):
    (places / VAL).write_text("")
    with pytest.raises(UserError, match=rf"{VAL} lists no pictures\. Get it with"):
        load_catalogue("places365", places)
