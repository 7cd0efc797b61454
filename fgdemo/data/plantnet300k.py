"""Pl@ntNet-300K, version 1.1, as its archive unpacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import SPLITS, Catalogue
from fgdemo.data.files import (
    named_hierarchy,
    photograph_catalogue,
    require_files,
    require_root,
    require_whole,
    told_apart,
)
from fgdemo.data.registry import register
from fgdemo.data.tables import read_json
from fgdemo.errors import UserError

FOLDER = "plantnet_300K"
METADATA = f"{FOLDER}/plantnet300K_metadata.json"
NAMES = f"{FOLDER}/plantnet300K_species_id_2_name.json"
# Copies differ in where the folders of the three splits lie.
LAYOUTS = (f"{FOLDER}/images/", f"{FOLDER}/images_")
HOW = (
    "Get plantnet_300K.zip, version 1.1, 306,146 pictures in about 32 GB, from https://zenodo.org/records/5645731, "
    "unpack it in a folder ROOT, which then has plantnet_300K/ with the two files plantnet300K_metadata.json and "
    "plantnet300K_species_id_2_name.json and the folders images/train, images/val and images/test, and give that ROOT."
)


@register("plantnet300k")
def plantnet300k(root: Path | None, *, seed: int) -> Catalogue:
    """306,146 photographs of 1,081 plants with the official splits (243,916/31,118/31,112).

    ``seed`` has no part in it. Fine classes are in the order of their official ids, as in the authors' code. Their
    names come from several checklists: some are synonyms, and "Lactuca virosa L." and "Lactuca virosa Habl." are two
    classes, so that the botanists stay in the names. Coarse classes are the genera, the first words of the names.
    Reading takes up to 0.4 GB of memory.

    Raises:
        UserError: the data set is not under ``root``, is there in part, or its files cannot be understood.
    """
    root = require_root(root, "plantnet300k", HOW)
    layout = next((start for start in LAYOUTS if (root / f"{start}train").is_dir()), LAYOUTS[0])
    require_files(root, (METADATA, NAMES, *(f"{layout}{split}" for split in SPLITS)), "plantnet300k", HOW)
    names, pictures = read_json(root / NAMES, HOW), read_json(root / METADATA, HOW)
    try:
        species = [str(facts["species_id"]) for facts in pictures.values()]
        splits = [facts["split"] for facts in pictures.values()]
        ids, fine = np.unique(np.array(species, dtype=np.str_), return_inverse=True)
        class_names = [" ".join(names[i].split()) for i in ids.tolist()]
        genera = [_genus(name) for name in class_names]
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise UserError(
            f"{root / METADATA} and {Path(NAMES).name} do not say the split, the species and its name of every "
            f"picture. {HOW}"
        ) from error
    if not pictures:
        raise UserError(f"{root / METADATA} lists no pictures. {HOW}")
    unknown = sorted(set(splits) - set(SPLITS), key=str)
    if unknown:
        raise UserError(f"{root / METADATA}: unknown split {unknown[0]!r}. {HOW}")
    folders = sorted({f"{layout}{split}/{i}" for split, i in zip(splits, species, strict=True)})
    absent = [folder for folder in folders if not (root / folder).is_dir()]
    require_whole(root, absent, len(folders), "plantnet300k", HOW)
    return photograph_catalogue(
        "plantnet300k",
        root,
        [f"{layout}{split}/{i}/{picture}.jpg" for picture, split, i in zip(pictures, splits, species, strict=True)],
        fine,
        np.array(splits),
        named_hierarchy(told_apart(class_names, ids.tolist()), genera, "plantnet300k", HOW),
        licence=(
            "Published under CC BY 4.0; each photograph has a Creative Commons licence of its own, which "
            "plantnet300K_metadata.json names beside its author: not to be redistributed without both."
        ),
        source=(
            "Pl@ntNet-300K, version 1.1 (C. Garcin, A. Joly, P. Bonnet, J.-C. Lombardo, A. Affouard, M. Chouet, "
            "M. Servajean, T. Lorieul and J. Salmon, NeurIPS Datasets and Benchmarks 2021), 306,146 photographs, "
            "official splits."
        ),
        how=HOW,
    )


def _genus(name: str) -> str:
    """The first word of the name of a species, without the sign of a hybrid genus."""
    words = name.replace("\N{MULTIPLICATION SIGN}", " ").split()
    return words[1] if words[0] == "x" else words[0]
