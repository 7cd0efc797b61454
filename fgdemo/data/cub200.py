"""CUB-200-2011 as its archive unpacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.files import named_hierarchy, photograph_catalogue, require_root
from fgdemo.data.registry import register
from fgdemo.data.splits import hold_out
from fgdemo.data.tables import read_image_tables

FOLDER = "CUB_200_2011"
HOW = (
    "Get CUB_200_2011.tgz, 11,788 pictures in about 1.1 GB, from https://www.vision.caltech.edu/datasets/cub_200_2011, "
    "unpack it in a folder ROOT, and give that ROOT."
)


@register("cub200")
def cub200(root: Path | None, *, seed: int, val_fraction: float = 0.1) -> Catalogue:
    """11,788 photographs of 200 birds with the official test split (5,994 for training, 5,794 for testing).

    Validation is a stratified ``val_fraction`` of the training pictures, drawn by ``seed``: there is no official
    one. The archive has no hierarchy. Coarse classes are the 70 last words of the class names (albatross, auklet,
    warbler), which is how birds are commonly grouped; it is no taxonomy.

    Raises:
        UserError: the data set is not under ``root``, or its tables cannot be understood.
    """
    root = require_root(root, "cub200", HOW)
    tables = read_image_tables(root, FOLDER, "cub200", HOW)
    ids = sorted(tables.names)
    # "001.Black_footed_Albatross" is the black-footed albatross; the number is the id once more.
    names = [tables.names[i].split(".", 1)[-1].replace("_", " ") for i in ids]
    fine = np.searchsorted(ids, tables.class_ids)
    return photograph_catalogue(
        "cub200",
        root,
        tables.keys,
        fine,
        hold_out(tables.split, fine, "val", val_fraction, seed=seed),
        named_hierarchy(names, [name.split(" ")[-1] for name in names], "cub200", HOW),
        source=(
            "Caltech-UCSD Birds-200-2011 (C. Wah, S. Branson, P. Welinder, P. Perona and S. Belongie, "
            "CNS-TR-2011-001), 11,788 photographs, official test split."
        ),
        how=HOW,
    )
