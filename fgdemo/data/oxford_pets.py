"""The Oxford-IIIT Pet data set in torchvision's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.files import named_hierarchy, photograph_catalogue, require_files, require_root, shared_values
from fgdemo.data.registry import register
from fgdemo.data.splits import hold_out
from fgdemo.data.tables import read_table
from fgdemo.errors import UserError

FOLDER = "oxford-iiit-pet"
LISTS = {"train": f"{FOLDER}/annotations/trainval.txt", "test": f"{FOLDER}/annotations/test.txt"}
SPECIES = {"1": "cat", "2": "dog"}
HOW = (
    "Get it with torchvision.datasets.OxfordIIITPet(ROOT, download=True), 7,349 pictures in about 810 MB, "
    "and give that ROOT."
)


@register("oxford_pets")
def oxford_pets(root: Path | None, *, seed: int, val_fraction: float = 0.1) -> Catalogue:
    """7,349 photographs of 37 breeds, 12 of cats and 25 of dogs, with the official test split (3,680/3,669).

    Validation is a stratified ``val_fraction`` of the official trainval pictures, drawn by ``seed``. Coarse
    classes are the two species. Breeds are named as their files are, in title case as torchvision has them; the
    files of cats begin with a capital letter, those of dogs do not.

    Raises:
        UserError: the data set is not under ``root``, or a line of its lists cannot be understood.
    """
    root = require_root(root, "oxford_pets", HOW)
    require_files(root, (f"{FOLDER}/images", *LISTS.values()), "oxford_pets", HOW)
    pictures: list[str] = []
    labels: list[int] = []
    species: list[str] = []
    split: list[str] = []
    for part, file in LISTS.items():
        for picture, rest in read_table(root / file, HOW).items():
            fields = rest.split(" ")
            if len(fields) != 3 or not fields[0].isdecimal() or fields[1] not in SPECIES:
                raise UserError(
                    f"{root / file}: expected a class, 1 or 2 for the species, and a breed after {picture}, "
                    f"got {rest!r}. {HOW}"
                )
            pictures.append(picture)
            labels.append(int(fields[0]) - 1)
            species.append(SPECIES[fields[1]])
            split.append(part)
    fine = np.array(labels, dtype=np.int64)
    breeds = [picture.rsplit("_", 1)[0].replace("_", " ").title() for picture in pictures]
    names = shared_values(fine, breeds, "names", HOW)
    return photograph_catalogue(
        "oxford_pets",
        root,
        [f"{FOLDER}/images/{picture}.jpg" for picture in pictures],
        fine,
        hold_out(np.array(split), fine, "val", val_fraction, seed=seed),
        named_hierarchy(names, shared_values(fine, species, "species", HOW), "oxford_pets", HOW),
        licence="Published under CC BY-SA 4.0; the copyright of the photographs remains with their owners.",
        source=(
            "Oxford-IIIT Pet (O. M. Parkhi, A. Vedaldi, A. Zisserman and C. V. Jawahar, CVPR 2012), "
            "7,349 photographs, official test split."
        ),
        how=HOW,
    )
