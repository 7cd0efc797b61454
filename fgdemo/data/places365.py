"""Places365-Standard in torchvision's layout."""

from __future__ import annotations

import os
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
)
from fgdemo.data.registry import register
from fgdemo.data.splits import hold_out
from fgdemo.data.tables import read_ids
from fgdemo.errors import UserError

CLASSES = "categories_places365.txt"
LISTS = {"train": "places365_train_standard.txt", "test": "places365_val.txt"}
# Where the pictures of 256 x 256 pixels lie, which are read faster, and where the large ones.
SIZES = (
    {"train": "data_256_standard", "test": "val_256"},
    {"train": "data_large_standard", "test": "val_large"},
)
SUPERCLASSES = ("indoor_outdoor",)
PLACES = "IO_places365.txt"
SIDES = {1: "indoor", 2: "outdoor"}
HOW = (
    "Get it with torchvision.datasets.Places365(ROOT, split, small=True, download=True) for each of the splits "
    "train-standard and val, 1,839,960 pictures in about 25 GB, and give that ROOT, which then has the files "
    "categories_places365.txt, places365_train_standard.txt and places365_val.txt and the folders data_256_standard "
    "and val_256 (with small=False: data_large_standard and val_large)."
)
HOW_PLACES = (
    "Get IO_places365.txt, which says what is indoors, from https://github.com/CSAILVision/places365 into the data "
    "root, or leave --superclasses out."
)


@register("places365")
def places365(
    root: Path | None, *, seed: int, val_fraction: float = 0.02, superclasses: str | None = None
) -> Catalogue:
    """1,803,460 photographs of 365 scenes for training, and the 36,500 of the official validation split for testing.

    The labels of the official test pictures are not public and figures are reported on the official validation
    split, so that this is the test split here; a stratified ``val_fraction`` of the training pictures, drawn by
    ``seed``, is for validation. Where the pictures lie in both sizes the smaller ones are read. The paths of all
    pictures take up 0.45 GB of memory, and 1 GB while they are read.

    Args:
        superclasses: not given, both levels are the same: the official table of 3 and 16 groups has a mark for each,
            so that a scene may lie in several, and the letter that a path begins with means nothing.
            "indoor_outdoor" puts every scene in one of two, and needs the official file ``IO_places365.txt``.

    Raises:
        UserError: the data set is not under ``root``, is there in part, or its lists cannot be understood.
    """
    if superclasses is not None:
        require_superclasses(superclasses, SUPERCLASSES, "places365")
    root = require_root(root, "places365", HOW)
    folders = next((size for size in SIZES if (root / size["train"]).is_dir()), SIZES[0])
    require_files(root, (CLASSES, *LISTS.values(), *folders.values()), "places365", HOW)
    numbers = read_ids(root / CLASSES, HOW)
    scenes = sorted(numbers, key=numbers.__getitem__)
    if [numbers[scene] for scene in scenes] != list(range(len(scenes))):
        raise UserError(f"{root / CLASSES}: the classes are not numbered 0, 1, 2 and so on. {HOW}")
    (training, train_labels), (testing, test_labels) = (_read(root / path, len(scenes)) for path in LISTS.values())
    for picture, label in zip(training, train_labels.tolist(), strict=True):
        if not picture.startswith(f"{scenes[label]}/"):
            raise UserError(f"{root / LISTS['train']}: {picture} is not of class {label}, {scenes[label]}. {HOW}")
    train, test = root / folders["train"], root / folders["test"]
    absent = [scene for scene in scenes if not (train / scene.lstrip("/")).is_dir()]
    require_whole(train, absent, len(scenes), "places365", HOW)
    there = set(os.listdir(test))
    require_whole(test, [name for name in testing if name not in there], len(testing), "places365", HOW)
    fine = np.concatenate((train_labels, test_labels))
    coarse = _sides(root, scenes) if superclasses else None
    # "/a/apartment_building/outdoor": behind the letter comes the name.
    names = [scene[3:].replace("_", " ") for scene in scenes]
    return photograph_catalogue(
        "places365",
        root,
        [folders["train"] + picture for picture in training] + [f"{folders['test']}/{picture}" for picture in testing],
        fine,
        hold_out(np.repeat(["train", "test"], [len(training), len(testing)]), fine, "val", val_fraction, seed=seed),
        named_hierarchy(names, coarse, "places365", HOW),
        licence=(
            "The photographs may be used for non-commercial research and education alone, and their copyright belongs "
            "to their owners: not to be redistributed."
        ),
        source=(
            "Places365-Standard (B. Zhou, A. Lapedriza, A. Khosla, A. Oliva and A. Torralba, TPAMI 2018), 1,839,960 "
            f"photographs ({folders['train']}), the official validation split for testing."
        ),
        how=HOW,
    )


def _read(path: Path, classes: int) -> tuple[list[str], np.ndarray]:
    """The pictures of a list, and (n,) int64 their class ids."""
    try:
        words = path.read_text(encoding="utf-8").split()
        pictures, labels = words[::2], np.array(words[1::2]).astype(np.int64)
    except (ValueError, OverflowError) as error:  # UnicodeDecodeError is a ValueError
        raise UserError(f"{path}: expected a picture and the number of its class in each line. {HOW}") from error
    if not pictures:
        raise UserError(f"{path} lists no pictures. {HOW}")
    if len(pictures) != len(labels):
        raise UserError(f"{path} breaks off: the last picture, {pictures[-1]}, has no class. {HOW}")
    odd = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(odd):
        raise UserError(f"{path}: {pictures[odd[0]]} has class {labels[odd[0]]}, which {CLASSES} lacks. {HOW}")
    return pictures, labels


def _sides(root: Path, scenes: list[str]) -> list[str]:
    """Whether each scene is indoors or outdoors."""
    require_files(root, (PLACES,), "places365", HOW_PLACES)
    sides = read_ids(root / PLACES, HOW_PLACES)
    for scene in scenes:
        if sides.get(scene) not in SIDES:
            raise UserError(f"{root / PLACES} does not say 1 for indoors or 2 for outdoors of {scene}. {HOW_PLACES}")
    return [SIDES[sides[scene]] for scene in scenes]
