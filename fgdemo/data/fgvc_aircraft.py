"""FGVC-Aircraft in torchvision's layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fgdemo.data.catalogue import SPLITS, Catalogue
from fgdemo.data.files import (
    FileReader,
    named_hierarchy,
    photograph_catalogue,
    require_files,
    require_root,
    require_superclasses,
    shared_values,
)
from fgdemo.data.registry import register
from fgdemo.data.tables import read_lines, read_table
from fgdemo.errors import UserError

FOLDER = "fgvc-aircraft-2013b/data"
VARIANTS = f"{FOLDER}/variants.txt"
SUPERCLASSES = ("family", "manufacturer")
BANNER = 20
HOW = (
    "Get it with torchvision.datasets.FGVCAircraft(ROOT, download=True), 10,000 pictures in about 2.75 GB, "
    "and give that ROOT."
)


@register("fgvc_aircraft")
def fgvc_aircraft(root: Path | None, *, seed: int, superclasses: str = "family") -> Catalogue:
    """10,000 photographs of 100 variants of aircraft with the official splits (3,334/3,333/3,333).

    ``seed`` has no part in it. The lowest 20 rows of each picture, a banner with the name of the photographer,
    are left out, as the authors of the data set ask; so the files must have their original size.

    Args:
        superclasses: the coarse classes, both official: "family" (70, as "Boeing 737" of the variant "737-700")
            or "manufacturer" (30, as "Boeing").

    Raises:
        UserError: the data set is not under ``root``, or a line of its lists cannot be understood.
    """
    require_superclasses(superclasses, SUPERCLASSES, "fgvc_aircraft")
    root = require_root(root, "fgvc_aircraft", HOW)
    lists = [f"{FOLDER}/images_{level}_{split}.txt" for level in ("variant", superclasses) for split in SPLITS]
    require_files(root, (f"{FOLDER}/images", VARIANTS, *lists), "fgvc_aircraft", HOW)
    names = [line for line in read_lines(root / VARIANTS, HOW) if line]
    number = {name: i for i, name in enumerate(names)}
    pictures: list[str] = []
    labels: list[int] = []
    parents: list[str] = []
    sizes: list[int] = []
    for variants, supers in zip(lists[:3], lists[3:], strict=True):
        of_variant, of_super = read_table(root / variants, HOW), read_table(root / supers, HOW)
        if of_variant.keys() != of_super.keys():
            raise UserError(f"{root / variants} and {root / supers} do not list the same pictures. {HOW}")
        unknown = [variant for variant in of_variant.values() if variant not in number]
        if unknown:
            raise UserError(f"{root / variants}: {VARIANTS} does not have the variant {unknown[0]!r}. {HOW}")
        pictures += of_variant
        labels += [number[variant] for variant in of_variant.values()]
        parents += [of_super[picture] for picture in of_variant]
        sizes.append(len(of_variant))
    absent = sorted(set(range(len(names))) - set(labels))
    if absent:
        raise UserError(f"{root / VARIANTS}: no picture shows the variant {names[absent[0]]!r}. {HOW}")
    fine = np.array(labels, dtype=np.int64)
    catalogue = photograph_catalogue(
        "fgvc_aircraft",
        root,
        [f"{FOLDER}/images/{picture}.jpg" for picture in pictures],
        fine,
        np.repeat(SPLITS, sizes),
        named_hierarchy(names, shared_values(fine, parents, f"names of a {superclasses}", HOW), "fgvc_aircraft", HOW),
        licence=(
            "The photographs are made available for non-commercial research alone, and their copyright remains with "
            "the photographers: not to be redistributed."
        ),
        source=(
            "FGVC-Aircraft (S. Maji, J. Kannala, E. Rahtu, M. Blaschko and A. Vedaldi, arXiv:1306.5151), "
            "10,000 photographs, official splits."
        ),
        how=HOW,
    )
    return replace(catalogue, reader=BannerlessReader(FileReader(root, catalogue.keys)))


@dataclass(frozen=True)
class BannerlessReader:
    """Dataset index -> RGB picture without the banner below it."""

    files: FileReader

    def __call__(self, index: int) -> Image.Image:
        image = self.files(index)
        if image.height <= BANNER:
            path = self.files.root / str(self.files.keys[index])
            raise UserError(
                f"{path} is no picture of FGVC-Aircraft: it is no higher than the {BANNER} rows of the banner."
            )
        return image.crop((0, 0, image.width, image.height - BANNER))
