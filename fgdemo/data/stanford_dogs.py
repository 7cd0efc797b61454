"""Stanford Dogs as its archives unpack."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.files import named_hierarchy, photograph_catalogue, require_files, require_root, shared_values
from fgdemo.data.mat import mat_numbers, mat_strings
from fgdemo.data.registry import register
from fgdemo.data.splits import hold_out
from fgdemo.errors import UserError

FOLDER = "Images"
LISTS = {"train": "train_list.mat", "test": "test_list.mat"}
HOW = (
    "Get images.tar and lists.tar, 20,580 pictures in about 760 MB, from "
    "http://vision.stanford.edu/aditya86/ImageNetDogs, unpack both in a folder ROOT, and give that ROOT."
)


@register("stanford_dogs")
def stanford_dogs(root: Path | None, *, seed: int, val_fraction: float = 0.1) -> Catalogue:
    """20,580 photographs of 120 breeds with the official test split (12,000 for training, 8,580 for testing).

    Validation is a stratified ``val_fraction`` of the training pictures, drawn by ``seed``: there is no official
    one. Breeds are named as their folders are ("n02085620-Chihuahua"). There is one level only: the archive groups
    the breeds in no way, and their names do not (an Airedale is a terrier).

    Raises:
        UserError: the data set is not under ``root``, or its lists cannot be understood.
    """
    root = require_root(root, "stanford_dogs", HOW)
    require_files(root, (FOLDER, *LISTS.values()), "stanford_dogs", HOW)
    paths: list[str] = []
    labels: list[np.ndarray] = []
    for file in LISTS.values():
        paths += mat_strings(root / file, "file_list", HOW)
        labels.append(mat_numbers(root / file, "labels", HOW) - 1)
        if len(paths) != sum(map(len, labels)):
            raise UserError(f"{root / file} has not as many labels as pictures. {HOW}")
    fine = np.concatenate(labels)
    breeds = [path.split("/")[0].split("-", 1)[-1].replace("_", " ") for path in paths]
    names = shared_values(fine, breeds, "names", HOW)
    split = np.repeat(list(LISTS), [len(part) for part in labels])
    return photograph_catalogue(
        "stanford_dogs",
        root,
        [f"{FOLDER}/{path}" for path in paths],
        fine,
        hold_out(split, fine, "val", val_fraction, seed=seed),
        named_hierarchy(names, None, "stanford_dogs", HOW),
        source=(
            "Stanford Dogs (A. Khosla, N. Jayadevaprakash, B. Yao and L. Fei-Fei, FGVC at CVPR 2011), "
            "20,580 photographs from ImageNet, official test split."
        ),
        how=HOW,
    )
