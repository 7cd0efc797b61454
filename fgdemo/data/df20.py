"""Danish Fungi 2020 as its archives unpack."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.files import (
    named_hierarchy,
    photograph_catalogue,
    require_files,
    require_root,
    require_superclasses,
    require_whole,
    shared_values,
    told_apart,
)
from fgdemo.data.registry import register
from fgdemo.data.splits import hold_out
from fgdemo.errors import UserError

TABLES = {"train": "DF20-train_metadata_PROD-2.csv", "test": "DF20-public_test_metadata_PROD-2.csv"}
COLUMNS = ("image_path", "class_id", "scientificName", "genus", "family")
# Where the pictures of at most 300 pixels lie, which are read faster, and where those of full size.
FOLDERS = ("DF20_300", "DF20-300px/DF20_300", "DF20")
SUPERCLASSES = ("genus", "family")
HOW = (
    "Get DF20-metadata.zip and DF20-300px.tar.gz (295,938 pictures of at most 300 pixels, 6.5 GB) or "
    "DF20-train_val.tar.gz (the same at full size, 110 GB) from https://github.com/BohemianVRA/DanishFungiDataset, "
    "unpack them in a folder ROOT, which then has the files DF20-train_metadata_PROD-2.csv and "
    "DF20-public_test_metadata_PROD-2.csv and the folder DF20_300 or DF20, and give that ROOT."
)


@register("df20")
def df20(root: Path | None, *, seed: int, val_fraction: float = 0.1, superclasses: str = "genus") -> Catalogue:
    """295,938 photographs of 1,604 fungi with the public test split (266,344 for training, 29,594 for testing).

    Validation is a stratified ``val_fraction`` of the training pictures, drawn by ``seed``: there is no official
    one. The official split is by picture: most of the fungi in a test picture have another one in training. Fine
    classes are in the order of their official ids and have their scientific names with the authors, since some
    differ in these alone. Where the pictures lie in both sizes the smaller ones are read. Reading the tables takes up
    to 0.3 GB of memory.

    Args:
        superclasses: the coarse classes, both official: "genus" (566) or "family". A genus without a family in the
            tables is a coarse class of its own.

    Raises:
        UserError: the data set is not under ``root``, is there in part, or its tables cannot be understood.
    """
    require_superclasses(superclasses, SUPERCLASSES, "df20")
    root = require_root(root, "df20", HOW)
    folder = next((name for name in FOLDERS if (root / name).is_dir()), FOLDERS[0])
    require_files(root, (*TABLES.values(), folder), "df20", HOW)
    tables = [_read(root / table) for table in TABLES.values()]
    pictures, ids, names, genera, families = zip(*(row for table in tables for row in table), strict=True)
    fine = np.array(ids)
    class_names = shared_values(fine, names, "scientific names", HOW, official_first=0)
    of_class = shared_values(fine, _completed(ids, genera), "genera", HOW, official_first=0)
    if superclasses == "family":
        known = shared_values(fine, _completed(ids, families), "families", HOW, official_first=0)
        of_class = [family or f"{genus} (no family)" for family, genus in zip(known, of_class, strict=True)]
    # The tables give .JPG, the small pictures have .jpg.
    there = {name.lower(): name for name in os.listdir(root / folder)}
    absent = [picture for picture in pictures if picture.lower() not in there]
    require_whole(root / folder, absent, len(pictures), "df20", HOW)
    split = np.repeat(list(TABLES), [len(table) for table in tables])
    return photograph_catalogue(
        "df20",
        root,
        [f"{folder}/{there[picture.lower()]}" for picture in pictures],
        fine,
        hold_out(split, fine, "val", val_fraction, seed=seed),
        named_hierarchy(told_apart(class_names, [str(i) for i in range(len(class_names))]), of_class, "df20", HOW),
        licence=(
            "Released under the BSD licence, with limits: the data are available for non-commercial research only, and "
            "the rights to the photographs lie with their authors: not to be redistributed."
        ),
        source=(
            "Danish Fungi 2020 (L. Picek, M. Sulc, J. Matas, T. S. Jeppesen, J. Heilmann-Clausen, T. Laessoe and "
            f"T. Froslev, WACV 2022), 295,938 photographs ({folder}), public test split."
        ),
        how=HOW,
    )


def _read(path: Path) -> list[tuple[str, int, str, str, str]]:
    """(picture, class id, scientific name, genus, family) of each row."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            columns = itemgetter(*(header.index(column) for column in COLUMNS))
            table = [tuple(value.strip() for value in columns(row)) for row in rows]
            if not table:
                raise ValueError("no rows")
            return [(picture, int(class_id), *names) for picture, class_id, *names in table]
    except (ValueError, IndexError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
        raise UserError(f"{path} is not a whole table with the columns {', '.join(COLUMNS)}. {HOW}") from error


def _completed(ids: Sequence[int], values: Sequence[str]) -> list[str]:
    """``values``, the empty ones replaced by that of another picture of the class, if one has it."""
    known = {class_id: value for class_id, value in zip(ids, values, strict=True) if value}
    return [value or known.get(class_id, "") for class_id, value in zip(ids, values, strict=True)]
