from __future__ import annotations

import csv
from functools import partial

import pytest
from support.photographs import check_drawn_validation, check_unreadable_pictures_are_named, fine_labels

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError

# Scientific name, genus, family; two names differ by the author alone, and two genera have no family.
SPECIES = (
    ("Russula nobilis Velen.", "Russula", "Russulaceae"),
    ("Lactarius rufus (Scop.) Fr.", "Lactarius", "Russulaceae"),
    ("Russula nobilis Bres.", "Russula", "Russulaceae"),
    ("Resinicium bicolor (Alb., Schwein. & Fr.) Parmasto", "Resinicium", ""),
    ("Trechispora mollusca", "Trechispora", ""),
)
HEADER = ("", "gbifID", "species", "genus", "family", "scientificName", "image_path", "class_id", "Habitat")
TRAIN, TEST = "DF20-train_metadata_PROD-2.csv", "DF20-public_test_metadata_PROD-2.csv"


@pytest.fixture(params=["DF20_300", "DF20-300px/DF20_300", "DF20"])
def fungi(tmp_path, write_picture, request):
    """Five species of ten training and two test pictures, in one of the places where they lie.

    The first picture of a species has no family in the table, and the small ones end in .jpg whatever the table says.
    """
    numbers = iter(range(1000))
    for table, n in ((TRAIN, 10), (TEST, 2)):
        rows = []
        for i in range(n):
            for class_id, (name, genus, family) in enumerate(SPECIES):
                picture = f"2237{next(numbers):06d}-{i}.JPG"
                binomial = " ".join(name.split()[:2]) if i else ""
                given = family if i else ""
                rows.append((len(rows), 7, binomial, genus, given, name, picture, class_id, "wood, on\nstumps"))
                stored = picture if request.param == "DF20" else picture.replace(".JPG", ".jpg")
                write_picture(tmp_path / request.param / stored)
        with (tmp_path / table).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([HEADER, *rows])
    return tmp_path


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_public_test_split_and_labels(fungi):
    catalogue = load_catalogue("df20", fungi)
    for table, splits in ((TRAIN, ("train", "val")), (TEST, ("test",))):
        expected = {row["image_path"].lower(): int(row["class_id"]) for row in rows_of(fungi / table)}
        labels = fine_labels(catalogue, *splits)
        assert {key.rpartition("/")[2].lower(): label for key, label in labels.items()} == expected
    assert all((fungi / key).is_file() for key in catalogue.keys.tolist())
    assert catalogue.reader(33).size == (12, 10)
    assert not catalogue.publishable


def test_validation(fungi):
    check_drawn_validation(partial(load_catalogue, "df20", fungi), per_class=1)


def test_coarse_classes_are_genera_or_families(fungi):
    genera = load_catalogue("df20", fungi)
    assert genera.class_names("fine") == tuple(name for name, _, _ in SPECIES)
    assert genera.superclass_names("fine") == tuple(genus for _, genus, _ in SPECIES)
    assert genera.class_names("coarse") == ("Lactarius", "Resinicium", "Russula", "Trechispora")
    families = load_catalogue("df20", fungi, superclasses="family")
    apart = ("Resinicium (no family)", "Trechispora (no family)")
    assert families.superclass_names("fine") == ("Russulaceae", "Russulaceae", "Russulaceae", *apart)
    assert families.class_names("fine") == genera.class_names("fine")
    assert families.default_labels == "fine"
    with pytest.raises(UserError, match="df20 has no superclasses 'order': choose one of genus, family"):
        load_catalogue("df20", fungi, superclasses="order")


def test_smaller_pictures_are_read_where_both_lie_there(fungi, write_picture):
    for row in (*rows_of(fungi / TRAIN), *rows_of(fungi / TEST)):
        write_picture(fungi / "DF20_300" / row["image_path"].replace(".JPG", ".jpg"))
    catalogue = load_catalogue("df20", fungi)
    assert {key.split("/")[0] for key in catalogue.keys.tolist()} == {"DF20_300"}
    assert "(DF20_300)" in catalogue.source


def test_unreadable_pictures(fungi):
    check_unreadable_pictures_are_named(load_catalogue("df20", fungi))


@pytest.mark.parametrize("missing", [TRAIN, TEST])
def test_missing_part_gives_path_way_and_size(fungi, missing):
    (fungi / missing).unlink()
    with pytest.raises(UserError, match=r"6\.5 GB.*https://github\.com/BohemianVRA.*folder DF20_300 or") as caught:
        load_catalogue("df20", fungi)
    assert str(fungi / missing) in str(caught.value)


def test_no_folder_of_pictures(fungi):
    for name in ("DF20_300", "DF20-300px", "DF20"):
        if (fungi / name).exists():
            (fungi / name).rename(fungi / "aside")
    with pytest.raises(UserError, match=r"DF20_300 is missing\. Get DF20-metadata\.zip"):
        load_catalogue("df20", fungi)


def test_an_archive_unpacked_in_part_is_noticed(fungi):
    keys = load_catalogue("df20", fungi).keys.tolist()
    for key in (keys[4], keys[50]):
        (fungi / key).unlink()
    first = rows_of(fungi / TRAIN)[4]["image_path"]
    with pytest.raises(UserError, match=rf"in part: 2 of 60 listed entries .*, the first is {first}\. Get DF20"):
        load_catalogue("df20", fungi)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "image_path",
            "path",
            r"train_metadata_PROD-2\.csv is not a whole table with the columns image_path, class_id",
        ),
        (".JPG,3,", ".JPG,three,", "is not a whole table"),
        (".JPG,3,", ".JPG,99999999999999999999,", "class ids of the pictures are not 0, 1, 2 and so on"),
        (".JPG,3,", ".JPG,7,", r"class ids of the pictures are not 0, 1, 2 and so on"),
        ("Russula,,Russula nobilis Velen.", "Russula,,Russula alba", "Class 0 has two scientific names, Russula alba"),
        ("Russula,,Russula nobilis Velen.", "Agaricus,,Russula nobilis Velen.", "Class 0 has two genera, Agaricus"),
    ],
)
def test_damaged_tables_are_named(fungi, old, new, message):
    table = fungi / TRAIN
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        load_catalogue("df20", fungi)


@pytest.mark.parametrize("end", ["", "gbifID", "image_path,class_id,Habitat\n", ".JPG"])
def test_a_table_cut_short_is_named(fungi, end):
    table = fungi / TEST
    text = table.read_text()
    table.write_text(text[: text.rindex(end) + len(end)] if end else "")
    with pytest.raises(UserError, match=r"test_metadata_PROD-2\.csv is not a whole table with the columns image_path"):
        load_catalogue("df20", fungi)


def test_a_picture_that_is_listed_twice_is_named(fungi):
    rows = (fungi / TRAIN).read_text().splitlines(keepends=True)
    with (fungi / TEST).open("a") as file:
        file.write("".join(rows[-2:]))
    with pytest.raises(UserError, match=r"name \S+-9\.(jpg|JPG) more than once"):
        load_catalogue("df20", fungi)
