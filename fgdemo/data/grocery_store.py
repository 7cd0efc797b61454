"""The Grocery Store data set: 81 fine classes in 43 coarse ones."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.files import FileReader, require_files, require_root
from fgdemo.data.hierarchy import Hierarchy
from fgdemo.data.registry import register
from fgdemo.data.splits import hold_out
from fgdemo.errors import UserError

FOLDER = "dataset"
LISTS = tuple(f"{FOLDER}/{split}.txt" for split in ("train", "val", "test"))
CLASSES = f"{FOLDER}/classes.csv"
COLUMNS = ("Class Name (str)", "Class ID (int)", "Coarse Class Name (str)", "Coarse Class ID (int)")
HOW = (
    "Get it with git clone https://github.com/marcusklasson/GroceryStoreDataset, 5,421 pictures in about "
    "120 MB, and give the cloned folder."
)


@register("grocery_store")
def grocery_store(root: Path | None, *, seed: int, val_fraction: float = 0.15) -> Catalogue:
    """5,421 photographs of groceries with the official test split.

    Validation is a stratified ``val_fraction`` of the official train and val pictures together, drawn by
    ``seed``: of the official val split 53 of the 81 classes have fewer than 6 pictures.

    Raises:
        UserError: the data set is not under ``root``, or a line of its lists cannot be understood.
    """
    root = require_root(root, "grocery_store", HOW)
    require_files(root, (*LISTS, CLASSES), "grocery_store", HOW)
    hierarchy = _hierarchy(root / CLASSES)
    lists = [_read_list(root / path) for path in LISTS]
    rows = [row for part in lists for row in part]
    keys = np.array([f"{FOLDER}/{path}" for path, _, _ in rows])
    fine = np.array([fine for _, fine, _ in rows], dtype=np.int64)
    coarse = np.array([coarse for _, _, coarse in rows], dtype=np.int64)
    if not np.isin(fine, np.arange(len(hierarchy.fine_names))).all():
        raise UserError(f"The lists in {root / FOLDER} name classes that {CLASSES} does not have. {HOW}")
    if not np.array_equal(hierarchy.fine_to_coarse[fine], coarse):
        raise UserError(f"The coarse classes of the lists in {root / FOLDER} contradict {CLASSES}. {HOW}")
    official = np.repeat(["train", "train", "test"], [len(part) for part in lists])
    split = hold_out(official, fine, "val", val_fraction, seed=seed)
    return Catalogue(
        name="grocery_store",
        root=root,
        keys=keys,
        fine=fine,
        coarse=coarse,
        split=split,
        hierarchy=hierarchy,
        default_labels="fine",
        reader=FileReader(root, keys),
        publishable=False,
        licence="Published under the MIT licence; the rights to the photographs lie with their owners.",
        source=(
            "Grocery Store (M. Klasson, C. Zhang and H. Kjellstrom, WACV 2019), 5,421 photographs, official test split."
        ),
    )


def _hierarchy(path: Path) -> Hierarchy:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = [tuple(row[column].strip() for column in COLUMNS) for row in csv.DictReader(file)]
        fine_names = {int(fine): name for name, fine, _, _ in table}
        coarse_names = {int(coarse): name for _, _, name, coarse in table}
        parents = {int(fine): int(coarse) for _, fine, _, coarse in table}
        return Hierarchy(
            tuple(fine_names[i] for i in range(len(table))),
            tuple(coarse_names[i] for i in range(len(coarse_names))),
            np.array([parents[i] for i in range(len(table))]),
        )
    except (KeyError, ValueError, AttributeError, csv.Error) as error:
        raise UserError(f"{path} is not the class table of the Grocery Store data set. {HOW}") from error


def _read_list(path: Path) -> list[tuple[str, int, int]]:
    """(path, fine, coarse) of each line ``path, fine, coarse``."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            name, fine, coarse = line.rsplit(",", 2)
            rows.append((name.strip(), int(fine), int(coarse)))
        except ValueError:
            raise UserError(f"{path}, line {number}: expected 'path, fine, coarse', got {line!r}.") from None
    return rows
