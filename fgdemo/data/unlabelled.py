"""Pictures whose classes nobody gave, or nobody wants: one class that holds them all."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.files import FileReader, require_root
from fgdemo.data.hierarchy import Hierarchy
from fgdemo.data.imagefolder import EXTENSIONS, is_unicode, picture_paths
from fgdemo.errors import UserError

logger = logging.getLogger(__name__)

ALL = "all pictures"


def picture_folder(root: Path) -> Catalogue:
    """Every picture anywhere below a folder, whatever the folders between, as training pictures of one class.

    Hidden files are ignored, links are followed, loops are not. Nothing is decoded here.

    Raises:
        UserError: no such folder, no pictures, or no permission.
    """
    root = require_root(root, "pictures", "Expected a folder with pictures in it, or in folders below it.")
    found = sorted("/".join(parts) for parts in picture_paths(os.fspath(root), (), set()))
    keys = [key for key in found if is_unicode(key)]
    if len(keys) < len(found):
        logger.warning("%d files are left out, their names are not Unicode.", len(found) - len(keys))
    if not keys:
        raise UserError(f"No pictures found in {root}: {', '.join(sorted(EXTENSIONS))} are looked for.")
    names = np.array(keys)
    zeros = np.zeros(len(keys), np.int64)
    return Catalogue(
        name="pictures",
        root=root,
        keys=names,
        fine=zeros,
        coarse=zeros,
        split=np.full(len(keys), "train"),
        hierarchy=Hierarchy.flat((ALL,)),
        default_labels="fine",
        reader=FileReader(root, names),
        publishable=True,
        licence="The rights to the pictures lie with whoever made the folder.",
        source=f"{len(keys):,} pictures from the folder {root.resolve().name}.",
    )


def without_labels(catalogue: Catalogue) -> Catalogue:
    """The same pictures and splits, all in one class."""
    zeros = np.zeros(len(catalogue), np.int64)
    return replace(catalogue, fine=zeros, coarse=zeros, hierarchy=Hierarchy.flat((ALL,)), default_labels="fine")
