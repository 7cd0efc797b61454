"""Stanford Cars in torchvision's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.files import named_hierarchy, photograph_catalogue, require_files, require_root
from fgdemo.data.mat import mat_numbers, mat_strings
from fgdemo.data.registry import register
from fgdemo.data.splits import hold_out
from fgdemo.errors import UserError

FOLDER = "stanford_cars"
CLASSES = f"{FOLDER}/devkit/cars_meta.mat"
# The labels of the test pictures were published later than the rest, and lie outside the devkit.
LISTS = {"train": f"{FOLDER}/devkit/cars_train_annos.mat", "test": f"{FOLDER}/cars_test_annos_withlabels.mat"}
FOLDERS = {"train": f"{FOLDER}/cars_train", "test": f"{FOLDER}/cars_test"}
TWO_WORDS = ("AM General", "Aston Martin", "Land Rover")
HOW = (
    "Its page has closed and torchvision downloads it no longer: bring a copy of the 16,185 pictures, about 2 GB, "
    "into the layout of torchvision.datasets.StanfordCars(ROOT), and give that ROOT."
)


@register("stanford_cars")
def stanford_cars(root: Path | None, *, seed: int, val_fraction: float = 0.1) -> Catalogue:
    """16,185 photographs of 196 cars with the official test split (8,144 for training, 8,041 for testing).

    Validation is a stratified ``val_fraction`` of the training pictures, drawn by ``seed``: there is no official
    one. Coarse classes are the 49 makers, with which every class name begins ("Audi TTS Coupe 2012"). The body
    type would group the looks better, but a name need not have one ("Chevrolet Corvette ZR1 2012").

    Raises:
        UserError: the data set is not under ``root``, or its annotations cannot be understood.
    """
    root = require_root(root, "stanford_cars", HOW)
    require_files(root, (*FOLDERS.values(), CLASSES, *LISTS.values()), "stanford_cars", HOW)
    names = [" ".join(name.split()) for name in mat_strings(root / CLASSES, "class_names", HOW)]
    keys: list[str] = []
    labels: list[np.ndarray] = []
    for part, file in LISTS.items():
        keys += [f"{FOLDERS[part]}/{name}" for name in mat_strings(root / file, "annotations", HOW, field="fname")]
        labels.append(mat_numbers(root / file, "annotations", HOW, field="class") - 1)
    fine = np.concatenate(labels)
    if not np.isin(fine, np.arange(len(names))).all():
        raise UserError(f"The annotations in {root / FOLDER} name classes that {CLASSES} does not have. {HOW}")
    split = np.repeat(list(LISTS), [len(part) for part in labels])
    return photograph_catalogue(
        "stanford_cars",
        root,
        keys,
        fine,
        hold_out(split, fine, "val", val_fraction, seed=seed),
        named_hierarchy(names, [_maker(name) for name in names], "stanford_cars", HOW),
        source=(
            "Stanford Cars (J. Krause, M. Stark, J. Deng and L. Fei-Fei, 3dRR at ICCV 2013), 16,185 photographs, "
            "official test split."
        ),
        how=HOW,
    )


def _maker(name: str) -> str:
    """The maker of the car that a class is called after."""
    return next((maker for maker in TWO_WORDS if name.startswith(f"{maker} ")), name.split(" ")[0])
