"""The iNaturalist competition data of 2021 and 2018 in torchvision's layout."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.files import (
    named_hierarchy,
    photograph_catalogue,
    require_files,
    require_root,
    require_superclasses,
    require_whole,
    told_apart,
)
from fgdemo.data.hierarchy import Hierarchy
from fgdemo.data.registry import register
from fgdemo.data.splits import hold_out
from fgdemo.data.tables import read_json
from fgdemo.errors import UserError

logger = logging.getLogger(__name__)

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
# From the narrowest on, the first is the default.
SUPERCLASSES = RANKS[::-1]
VERSIONS = ("2021_train", "2021_train_mini", "2018")
VALID_2021 = "2021_valid"
CATEGORIES_2018 = "categories.json"
LISTS_2018 = {"train": "train2018.json", "test": "val2018.json"}
HOW = (
    "Get it with torchvision.datasets.INaturalist(ROOT, version, download=True) for 2021_valid (8.4 GB) and either "
    "2021_train (2,686,843 pictures, 224 GB) or 2021_train_mini (500,000 of them, 42 GB), or for 2018 (461,939 "
    "pictures, 120 GB) and then put train2018.json, val2018.json and categories.json from "
    "https://github.com/visipedia/inat_comp/tree/master/2018 beside it; and give that ROOT, which then has the "
    "folders 2021_valid and 2021_train or 2021_train_mini, or the folder 2018 and the three files."
)


@register("inaturalist")
def inaturalist(
    root: Path | None, *, seed: int, val_fraction: float = 0.02, superclasses: str = SUPERCLASSES[0]
) -> Catalogue:
    """Photographs of 10,000 species (2021, whole or mini) or 8,142 (2018), whichever of them lies under ``root``.

    The labels of the official test pictures are not public and figures are reported on the official validation
    split, so that this is the test split here (100,000 pictures of 2021, 24,426 of 2018); a stratified
    ``val_fraction`` of the training pictures, drawn by ``seed``, is for validation. Fine classes are in the order of
    their official ids. The paths of all pictures of 2021 take up 1.5 GB of memory, and 2.3 GB while they are listed.

    Args:
        superclasses: the coarse classes, "genus" or a rank above it up to "kingdom". Two genera of one name, one of
            birds and one of plants, are told apart.

    Raises:
        UserError: the data set is not under ``root``, is there in part or in several versions, or its files cannot
            be understood.
    """
    require_superclasses(superclasses, SUPERCLASSES, "inaturalist")
    root = require_root(root, "inaturalist", HOW)
    found = [version for version in VERSIONS if (root / version).is_dir()]
    if not found:
        raise UserError(f"Data set inaturalist was not found: {root.absolute()} has none of {_any(VERSIONS)}. {HOW}")
    if len(found) > 1:
        raise UserError(
            f"{root.absolute()} has {' and '.join(found)}: give a folder with one of them (links to {found[0]} and "
            "what belongs to it will do)."
        )
    version = found[0]
    logger.info("inaturalist: the version under %s is %s.", root, version)
    listing = _list_2018(root) if version == "2018" else _list_2021(root, version)
    split = np.repeat(["train", "test"], [listing.training, len(listing.keys) - listing.training])
    return photograph_catalogue(
        "inaturalist",
        root,
        listing.keys,
        listing.fine,
        hold_out(split, listing.fine, "val", val_fraction, seed=seed),
        _hierarchy(listing, superclasses),
        licence=(
            "The terms of the competition allow non-commercial research and education alone and forbid to distribute "
            "the photographs; iNaturalist's terms of service apply."
        ),
        source=(
            f"iNaturalist {version} (G. Van Horn et al., CVPR 2018 and CVPR 2021), {len(listing.keys):,} photographs, "
            "the official validation split for testing."
        ),
        how=HOW,
    )


class _Listing(NamedTuple):
    """Pictures in the order of their splits, and classes in the order of their ids.

    Attributes:
        keys: paths of the pictures, the first ``training`` of them for training.
        fine: (N,) int64.
        lineages: kingdom to genus of each class.
    """

    keys: list[str]
    training: int
    fine: np.ndarray
    names: list[str]
    lineages: list[tuple[str, ...]]


def _list_2021(root: Path, version: str) -> _Listing:
    """Folders like ``00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris``."""
    require_files(root, (VALID_2021,), "inaturalist", HOW)
    classes, testable = (_folders(root / folder) for folder in (version, VALID_2021))
    # An interrupted download leaves gaps in the numbers of one or both.
    every = sorted(set(classes) | set(testable))
    for folder, there in ((version, classes), (VALID_2021, testable)):
        require_whole(root / folder, sorted(set(every) - set(there)), len(every), "inaturalist", HOW)
    taxa = [name.split("_") for name in classes]
    for number, (name, taxon) in enumerate(zip(classes, taxa, strict=True)):
        if len(taxon) != len(RANKS) + 2 or taxon[0] != f"{number:05d}":
            raise UserError(
                f"{root / version}: expected a folder {number:05d}_KINGDOM_PHYLUM_CLASS_ORDER_FAMILY_GENUS_SPECIES, "
                f"got {name}. {HOW}"
            )
    keys: list[str] = []
    sizes: list[int] = []
    for folder in (version, VALID_2021):
        for name in classes:
            pictures = sorted(file for file in os.listdir(root / folder / name) if file.endswith(".jpg"))
            keys += [f"{folder}/{name}/{picture}" for picture in pictures]
            sizes.append(len(pictures))
    return _Listing(
        keys=keys,
        training=sum(sizes[: len(classes)]),
        fine=np.repeat(np.tile(np.arange(len(classes)), 2), sizes),
        names=[" ".join(taxon[-2:]) for taxon in taxa],
        lineages=[tuple(taxon[1:-1]) for taxon in taxa],
    )


def _list_2018(root: Path) -> _Listing:
    """The lists of the two splits, which torchvision's folder has together, and the table of species."""
    require_files(root, (CATEGORIES_2018, *LISTS_2018.values()), "inaturalist", HOW)
    try:
        species = sorted(read_json(root / CATEGORIES_2018, HOW), key=lambda category: category["id"])
        names = [category["name"] for category in species]
        lineages = [tuple(category[rank] for rank in RANKS) for category in species]
        numbered = [category["id"] for category in species] == list(range(len(species)))
    except (KeyError, TypeError) as error:
        raise UserError(f"{root / CATEGORIES_2018} is not the table of species of 2018. {HOW}") from error
    if not numbered:
        raise UserError(f"{root / CATEGORIES_2018}: the species are not numbered 0, 1, 2 and so on. {HOW}")
    keys: list[str] = []
    labels: list[int] = []
    training = 0
    for split, path in LISTS_2018.items():
        data = read_json(root / path, HOW)
        try:
            files = {image["id"]: image["file_name"] for image in data["images"]}
            # The archive's folder, train_val2018, has another name in torchvision's layout.
            keys += [f"2018/{files[note['image_id']].partition('/')[2]}" for note in data["annotations"]]
            labels += [note["category_id"] for note in data["annotations"]]
            unknown = set(labels) - set(range(len(species)))
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{root / path} is not a list of pictures and annotations of 2018. {HOW}") from error
        if unknown:
            raise UserError(f"{root / path}: {CATEGORIES_2018} lacks species {min(unknown, key=str)}. {HOW}")
        training = len(keys) if split == "train" else training
    folders = sorted({key.rpartition("/")[0] for key in keys})
    absent = [folder for folder in folders if not (root / folder).is_dir()]
    require_whole(root, absent, len(folders), "inaturalist", HOW)
    return _Listing(keys, training, np.array(labels, dtype=np.int64), names, lineages)


def _folders(folder: Path) -> list[str]:
    """Names of the folders in ``folder``, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _hierarchy(listing: _Listing, rank: str) -> Hierarchy:
    """Species in their taxa of one rank; taxa of one name with different ones above them are different taxa."""
    depth = RANKS.index(rank) + 1
    taxa = [lineage[:depth] for lineage in listing.lineages]
    distinct = sorted(set(taxa))
    marks = [taxon[-2] if depth > 1 else "" for taxon in distinct]
    name_of = dict(zip(distinct, told_apart([taxon[-1] for taxon in distinct], marks), strict=True))
    names = told_apart(listing.names, [f"{number:05d}" for number in range(len(listing.names))])
    return named_hierarchy(names, [name_of[taxon] for taxon in taxa], "inaturalist", HOW)


def _any(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
