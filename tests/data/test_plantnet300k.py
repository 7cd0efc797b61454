from __future__ import annotations

import json

import numpy as np
import pytest
from support.photographs import check_unreadable_pictures_are_named, fine_labels

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError

# Not in the order of their ids; two species have the same name, and two genera are hybrids.
NAMES = {
    "1355990": "Salvia \N{MULTIPLICATION SIGN} sylvestris L.",
    "1355868": "Lactuca virosa L.",
    "1355932": "Lactuca virosa  Habl.",
    "1361000": "\N{MULTIPLICATION SIGN} Chitalpa tashkentensis Elias & Wisura",
    "1362000": "x Chitalpa alba Elias",
    "1363000": "Lactuca virosa L.",
}
SIZES = {"train": 3, "val": 1, "test": 2}


@pytest.fixture(params=["images/", "images_"])
def plantnet(tmp_path, write_picture, request):
    """Six species with three, one and two pictures in the splits, in either place where the archives have them."""
    folder = tmp_path / "plantnet_300K"
    pictures = {}
    for split, n in SIZES.items():
        for i in range(n):
            for species in NAMES:
                picture = f"{len(pictures) * 7919 % 10_007:040x}"
                pictures[picture] = {
                    "species_id": species,
                    "obs_id": str(len(pictures)),
                    "organ": "leaf" if i else "flower",
                    "split": split,
                    "author": "A. Botanist",
                    "license": "cc-by-sa",
                }
                write_picture(folder / f"{request.param}{split}" / species / f"{picture}.jpg")
    (folder / "plantnet300K_metadata.json").write_text(json.dumps(pictures))
    (folder / "plantnet300K_species_id_2_name.json").write_text(json.dumps(NAMES))
    return tmp_path


@pytest.fixture
def edit(plantnet):
    """Change the metadata in place by a function of them."""

    def edit(change) -> None:
        path = plantnet / "plantnet_300K" / "plantnet300K_metadata.json"
        pictures = json.loads(path.read_text())
        change(pictures, next(iter(pictures)))
        path.write_text(json.dumps(pictures))

    return edit


def test_splits_and_labels_are_those_of_the_folders(plantnet):
    from torchvision.datasets import ImageFolder

    catalogue = load_catalogue("plantnet300k", plantnet, seed=5)
    train = next((plantnet / "plantnet_300K").glob("**/*train"))
    for split, n in SIZES.items():
        oracle = ImageFolder(str(train)[: -len("train")] + split)
        keys = {path.removeprefix(f"{plantnet}/"): label for path, label in oracle.samples}
        assert fine_labels(catalogue, split) == keys
        assert len(keys) == n * len(NAMES)
    assert catalogue.reader(7).size == (12, 10)
    assert not catalogue.publishable
    assert catalogue.default_labels == "fine"


def test_coarse_classes_are_genera(plantnet):
    catalogue = load_catalogue("plantnet300k", plantnet)
    names = catalogue.class_names("fine")
    assert names[0] == "Lactuca virosa L. (1355868)"
    assert names[1] == "Lactuca virosa Habl."
    assert names[5] == "Lactuca virosa L. (1363000)"
    assert catalogue.class_names("coarse") == ("Chitalpa", "Lactuca", "Salvia")
    assert catalogue.superclass_names("fine") == ("Lactuca", "Lactuca", "Salvia", "Chitalpa", "Chitalpa", "Lactuca")


def test_labels_do_not_depend_on_the_order_of_the_pictures(plantnet):
    before = fine_labels(load_catalogue("plantnet300k", plantnet), *SIZES)
    path = plantnet / "plantnet_300K" / "plantnet300K_metadata.json"
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert fine_labels(load_catalogue("plantnet300k", plantnet), *SIZES) == before


@pytest.mark.parametrize("option", [{"val_fraction": 0.1}, {"superclasses": "genus"}])
def test_there_is_nothing_to_choose(plantnet, option):
    with pytest.raises(UserError, match=f"plantnet300k has no option {next(iter(option))}"):
        load_catalogue("plantnet300k", plantnet, **option)


def test_unreadable_pictures(plantnet):
    check_unreadable_pictures_are_named(load_catalogue("plantnet300k", plantnet))


@pytest.mark.parametrize("missing", ["plantnet300K_metadata.json", "plantnet300K_species_id_2_name.json", "*test"])
def test_missing_part_gives_path_way_and_size(plantnet, missing):
    path = next((plantnet / "plantnet_300K").glob(f"**/{missing}"))
    path.rename(plantnet / "aside")
    with pytest.raises(UserError, match=r"32 GB, from https://zenodo\.org.*images/train, images/val") as caught:
        load_catalogue("plantnet300k", plantnet)
    assert str(path) in str(caught.value)


def test_an_archive_unpacked_in_part_is_noticed(plantnet):
    for folder in sorted((plantnet / "plantnet_300K").glob("**/1355990"))[:2]:
        folder.rename(folder.with_name("aside"))
    with pytest.raises(UserError, match=r"in part: 2 of 18 listed entries.*test/1355990\. Get plantnet_300K\.zip"):
        load_catalogue("plantnet300k", plantnet)


def test_a_file_cut_short_is_named(plantnet):
    path = plantnet / "plantnet_300K" / "plantnet300K_metadata.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"plantnet300K_metadata\.json is not a whole JSON file\. Get"):
        load_catalogue("plantnet300k", plantnet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pictures, first: pictures[first].pop("split"), "do not say the split, the species and its name"),
        (lambda pictures, first: pictures[first].update(species_id="1"), "do not say the split, the species and its"),
        (lambda pictures, first: pictures.update({first: ["train"]}), "do not say the split, the species and its name"),
        (lambda pictures, first: pictures[first].update(split="dev"), "unknown split 'dev'"),
        (lambda pictures, first: pictures[first].update(split=None), "unknown split None"),
    ],
)
def test_damaged_metadata_are_named(plantnet, edit, change, message):
    edit(change)
    with pytest.raises(UserError, match=message):
        load_catalogue("plantnet300k", plantnet)


def test_no_pictures_at_all_is_named(plantnet):
    (plantnet / "plantnet_300K" / "plantnet300K_metadata.json").write_text("{}")
    with pytest.raises(UserError, match="lists no pictures"):
        load_catalogue("plantnet300k", plantnet)


def test_every_picture_belongs_to_the_named_class(plantnet):
    catalogue = load_catalogue("plantnet300k", plantnet)
    ids = np.array(sorted(NAMES))
    assert [key.split("/")[-2] for key in catalogue.keys.tolist()] == ids[catalogue.fine].tolist()
