from __future__ import annotations

import json
import logging
from functools import partial

import pytest
from support.photographs import check_drawn_validation, check_unreadable_pictures_are_named, fine_labels
from torchvision.datasets import INaturalist

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
# Kingdom to genus, species and a group of 2018; a bird and a plant share the name of their genus.
SPECIES = (
    ("Animalia", "Chordata", "Aves", "Passeriformes", "Prunellidae", "Prunella", "modularis", "Aves"),
    ("Animalia", "Chordata", "Aves", "Passeriformes", "Corvidae", "Corvus", "corax", "Aves"),
    ("Animalia", "Chordata", "Aves", "Passeriformes", "Corvidae", "Corvus", "corone", "Aves"),
    ("Plantae", "Tracheophyta", "Magnoliopsida", "Lamiales", "Lamiaceae", "Prunella", "vulgaris", "Plantae"),
)
SIZES = {"train": 10, "valid": 2}
FOLDERS = [f"{number:05d}_{'_'.join(species[:7])}" for number, species in enumerate(SPECIES)]


@pytest.fixture(params=["2021_train", "2021_train_mini"])
def inat(tmp_path, write_picture, request):
    """Four species of ten training and two validation pictures as torchvision has those of 2021."""
    for folder, n in ((request.param, 10), ("2021_valid", 2)):
        for number, name in enumerate(FOLDERS):
            for i in range(n):
                write_picture(tmp_path / folder / name / f"{folder[5]}{i * 7919 % 10_007:08x}-{number}.jpg")
    (tmp_path / request.param / FOLDERS[0] / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.fixture
def inat2018(tmp_path, write_picture):
    """The same species as torchvision has those of 2018, the two splits in one folder and told apart by the lists."""
    categories = [
        {
            "id": number,
            "name": " ".join(species[5:7]),
            "supercategory": species[7],
            **dict(zip(RANKS, species, strict=False)),
        }
        for number, species in enumerate(SPECIES)
    ]
    (tmp_path / "categories.json").write_text(json.dumps(categories[::-1]))
    for year_list, n in (("train2018.json", 10), ("val2018.json", 2)):
        images, notes = [], []
        for i in range(n):
            for number, species in enumerate(SPECIES):
                key = f"{species[7]}/{number}/{year_list[0]}{i:03d}.jpg"
                write_picture(tmp_path / "2018" / key)
                images.append({"id": len(images) + 5, "file_name": f"train_val2018/{key}", "width": 12, "height": 10})
                notes.append({"id": len(notes), "image_id": len(images) + 4, "category_id": number})
        # The annotations need not be in the order of the pictures.
        data = {"info": {}, "images": images, "categories": [], "annotations": notes[::-1]}
        (tmp_path / year_list).write_text(json.dumps(data))
    return tmp_path


@pytest.fixture
def edit(inat2018):
    """Change one of the files of 2018 by a function of what it holds."""

    def edit(file: str, change) -> None:
        data = json.loads((inat2018 / file).read_text())
        change(data)
        (inat2018 / file).write_text(json.dumps(data))

    return edit


def version_of(root) -> str:
    return next(path.name for path in root.glob("2021_train*"))


def test_2021_agrees_with_torchvision(inat):
    catalogue = load_catalogue("inaturalist", inat)
    (inat / version_of(inat) / FOLDERS[0] / "notes.txt").unlink()
    for version, splits in ((version_of(inat), ("train", "val")), ("2021_valid", ("test",))):
        oracle = INaturalist(inat, version=version)
        expected = {f"{version}/{oracle.all_categories[i]}/{file}": i for i, file in oracle.index}
        assert fine_labels(catalogue, *splits) == expected
    assert catalogue.reader(33).size == (12, 10)
    assert not catalogue.publishable
    assert catalogue.default_labels == "fine"


@pytest.mark.parametrize("rank", RANKS)
def test_ranks_agree_with_torchvision_but_for_one_name_of_two_genera(inat, rank):
    catalogue = load_catalogue("inaturalist", inat, superclasses=rank)
    oracle = INaturalist(inat, version="2021_valid", target_type=rank)
    theirs = [oracle.category_name(rank, taxa[rank]) for taxa in oracle.categories_map]
    ours = [name.partition(" (")[0] for name in catalogue.superclass_names("fine")]
    assert ours == theirs
    if rank == "genus":
        assert catalogue.class_names("coarse") == ("Corvus", "Prunella (Lamiaceae)", "Prunella (Prunellidae)")


def test_genera_are_the_default(inat):
    plain = load_catalogue("inaturalist", inat)
    assert plain.superclass_names("fine") == (
        "Prunella (Prunellidae)",
        "Corvus",
        "Corvus",
        "Prunella (Lamiaceae)",
    )
    assert plain.class_names("fine") == ("Prunella modularis", "Corvus corax", "Corvus corone", "Prunella vulgaris")
    with pytest.raises(UserError, match="no superclasses 'super': choose one of genus, family, order, class, phylum"):
        load_catalogue("inaturalist", inat, superclasses="super")


def test_2018_is_split_by_its_lists(inat2018):
    catalogue = load_catalogue("inaturalist", inat2018)
    oracle = INaturalist(inat2018, version="2018")
    expected = {f"2018/{oracle.all_categories[i]}/{file}": i for i, file in oracle.index}
    assert fine_labels(catalogue, "train", "val", "test") == expected
    assert all(key.rpartition("/")[2][0] == "v" for key in catalogue.keys[catalogue.rows("test")].tolist())
    assert len(catalogue.rows("test")) == 8
    assert catalogue.class_names("fine") == ("Prunella modularis", "Corvus corax", "Corvus corone", "Prunella vulgaris")
    families = load_catalogue("inaturalist", inat2018, superclasses="family")
    assert families.superclass_names("fine") == ("Prunellidae", "Corvidae", "Corvidae", "Lamiaceae")
    assert catalogue.reader(5).size == (12, 10)


def test_validation_2021(inat):
    check_drawn_validation(partial(load_catalogue, "inaturalist", inat, val_fraction=0.1), per_class=1)
    assert len(load_catalogue("inaturalist", inat).rows("val")) == round(40 / 50)


def test_validation_2018(inat2018):
    check_drawn_validation(partial(load_catalogue, "inaturalist", inat2018, val_fraction=0.1), per_class=1)


def test_unreadable_pictures_2021(inat):
    check_unreadable_pictures_are_named(load_catalogue("inaturalist", inat))


def test_unreadable_pictures_2018(inat2018):
    check_unreadable_pictures_are_named(load_catalogue("inaturalist", inat2018))


def test_the_version_is_told(inat, caplog):
    with caplog.at_level(logging.INFO, logger="fgdemo.data.inaturalist"):
        catalogue = load_catalogue("inaturalist", inat)
    assert f"the version under {inat} is {version_of(inat)}." in caplog.text
    assert catalogue.source.startswith(f"iNaturalist {version_of(inat)} (")


def test_several_versions_are_not_chosen_among(inat):
    (inat / "2018").mkdir()
    with pytest.raises(UserError, match=rf"has {version_of(inat)} and 2018: give a folder with one of them"):
        load_catalogue("inaturalist", inat)


def test_no_version_gives_way_and_sizes(tmp_path):
    (tmp_path / "2021_valid").mkdir()
    with pytest.raises(
        UserError,
        match=r"has none of 2021_train, 2021_train_mini and 2018\. Get it with torchvision.*8\.4 GB.*224 GB.*120 GB",
    ):
        load_catalogue("inaturalist", tmp_path)


def test_2021_needs_its_validation_pictures(inat):
    (inat / "2021_valid").rename(inat / "aside")
    with pytest.raises(UserError, match=r"2021_valid is missing\. Get it with torchvision\.datasets\.INaturalist"):
        load_catalogue("inaturalist", inat)


@pytest.mark.parametrize("missing", ["categories.json", "train2018.json", "val2018.json"])
def test_2018_needs_its_lists(inat2018, missing):
    (inat2018 / missing).unlink()
    with pytest.raises(
        UserError, match=r"put train2018\.json, val2018\.json and categories\.json from https"
    ) as caught:
        load_catalogue("inaturalist", inat2018)
    assert str(inat2018 / missing) in str(caught.value)


def test_an_archive_of_2021_unpacked_in_part_is_noticed(inat):
    folder = inat / version_of(inat) / FOLDERS[2]
    folder.rename(inat / "aside")
    with pytest.raises(UserError, match=rf"in part: 1 of 4 .*{version_of(inat)}, the first is {FOLDERS[2]}\. Get it"):
        load_catalogue("inaturalist", inat)
    (inat / "2021_valid" / FOLDERS[2]).rename(inat / "aside2")
    with pytest.raises(UserError, match=rf"expected a folder 00002_KINGDOM.*, got {FOLDERS[3]}\."):
        load_catalogue("inaturalist", inat)


def test_an_archive_of_2018_unpacked_in_part_is_noticed(inat2018):
    (inat2018 / "2018" / "Aves").rename(inat2018 / "aside")
    with pytest.raises(UserError, match=r"in part: 3 of 4 listed entries .*, the first is 2018/Aves/0\. Get it"):
        load_catalogue("inaturalist", inat2018)


@pytest.mark.parametrize("name", ["00000_Animalia_Chordata_Prunella_modularis", "train2018"])
def test_a_folder_that_is_no_species_is_named(inat, name):
    for folder in (version_of(inat), "2021_valid"):
        (inat / folder / FOLDERS[0]).rename(inat / folder / name)
    with pytest.raises(
        UserError, match=r"expected a folder 00000_KINGDOM_PHYLUM_CLASS_ORDER_FAMILY_GENUS_SPECIES, got"
    ):
        load_catalogue("inaturalist", inat)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "categories.json",
            lambda rows: rows[0].pop("family"),
            r"categories\.json is not the table of species of 2018",
        ),
        ("categories.json", lambda rows: rows.append(7), r"categories\.json is not the table of species of 2018"),
        ("categories.json", lambda rows: rows.pop(1), "the species are not numbered 0, 1, 2 and so on"),
        ("categories.json", lambda rows: rows.pop(0), r"train2018\.json: categories\.json lacks species 3\."),
        (
            "train2018.json",
            lambda data: data.pop("annotations"),
            r"train2018\.json is not a list of pictures and annot",
        ),
        ("val2018.json", lambda data: data["images"].pop(), r"val2018\.json is not a list of pictures and annotations"),
        (
            "val2018.json",
            lambda data: data["images"][0].update(file_name=3),
            r"val2018\.json is not a list of pictures",
        ),
        ("train2018.json", lambda data: data["annotations"].append(data["annotations"][0]), r"\.jpg more than once"),
    ],
)
def test_damaged_files_of_2018_are_named(inat2018, edit, file, change, message):
    edit(file, change)
    with pytest.raises(UserError, match=message):
        load_catalogue("inaturalist", inat2018)
