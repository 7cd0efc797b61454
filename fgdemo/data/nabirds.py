"""NABirds as its archive unpacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.files import named_hierarchy, photograph_catalogue, require_files, require_root, require_superclasses
from fgdemo.data.registry import register
from fgdemo.data.splits import hold_out
from fgdemo.data.tables import number_keys, read_ids, read_image_tables
from fgdemo.errors import UserError

FOLDER = "nabirds"
PARENTS = f"{FOLDER}/hierarchy.txt"
# How many steps above the class of a picture.
SUPERCLASSES = {"species": 1, "family": 2}
HOW = (
    "Get nabirds.tar.gz, 48,562 pictures in about 10 GB, from https://dl.allaboutbirds.org/nabirds, "
    "unpack it in a folder ROOT, and give that ROOT."
)


@register("nabirds")
def nabirds(root: Path | None, *, seed: int, val_fraction: float = 0.1, superclasses: str = "species") -> Catalogue:
    """48,562 photographs of 555 birds with the official test split (23,929 for training, 24,633 for testing).

    Of the 1,011 nodes of the official hierarchy the 555 leaves have pictures: a species, or what tells the birds of
    a species apart, as in "Mallard (Breeding male)". Fine classes are these leaves in ascending order of their
    official ids. Validation is a stratified ``val_fraction`` of the training pictures, drawn by ``seed``: there is
    no official one.

    Args:
        superclasses: the coarse classes. "species" is the node above the leaf (404, many with a single leaf): the
            variation inside a class is that of sex, age and plumage. "family" is the node above the species (50):
            a family of perching birds, an order of the others.

    Raises:
        UserError: the data set is not under ``root``, or its tables cannot be understood.
    """
    require_superclasses(superclasses, SUPERCLASSES, "nabirds")
    root = require_root(root, "nabirds", HOW)
    tables = read_image_tables(root, FOLDER, "nabirds", HOW)
    require_files(root, (PARENTS,), "nabirds", HOW)
    ids, fine = np.unique(tables.class_ids, return_inverse=True)
    above = number_keys(read_ids(root / PARENTS, HOW), root / PARENTS, HOW)
    try:
        coarse = ids.tolist()
        for _ in range(SUPERCLASSES[superclasses]):
            coarse = [above[node] for node in coarse]
        coarse_names = [tables.names[node] for node in coarse]
    except KeyError as error:
        raise UserError(f"{root / PARENTS} or its class names lack class {error.args[0]}. {HOW}") from error
    return photograph_catalogue(
        "nabirds",
        root,
        tables.keys,
        fine,
        hold_out(tables.split, fine, "val", val_fraction, seed=seed),
        named_hierarchy([tables.names[i] for i in ids.tolist()], coarse_names, "nabirds", HOW),
        source=(
            "NABirds (G. Van Horn, S. Branson, R. Farrell, S. Haber, J. Barry, P. Ipeirotis, P. Perona and "
            "S. Belongie, CVPR 2015), 48,562 photographs, official test split."
        ),
        how=HOW,
    )
