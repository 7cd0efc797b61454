"""What the data sets made of picture files share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.hierarchy import Hierarchy
from fgdemo.data.images import open_image
from fgdemo.errors import UserError

RIGHTS = "The rights to the photographs lie with their owners: not to be redistributed."


@dataclass(frozen=True)
class FileReader:
    """Dataset index -> RGB picture of the file ``root / keys[index]``."""

    root: Path
    keys: np.ndarray

    def __call__(self, index: int) -> Image.Image:
        return open_image(self.root / str(self.keys[index]))


def require_root(root: Path | None, name: str, how: str) -> Path:
    """``root`` if it is a folder, else UserError with the path looked at and ``how`` to get the data."""
    if root is None:
        raise UserError(f"Data set {name} needs the folder that it lies in (--data-root). {how}")
    if not root.is_dir():
        raise UserError(f"Data set {name} was not found: {root.absolute()} is not a folder. {how}")
    return root


def require_files(root: Path, relative: tuple[str, ...], name: str, how: str) -> None:
    """UserError with the first missing path below ``root`` and ``how`` to get the data."""
    for path in relative:
        if not (root / path).exists():
            raise UserError(f"Data set {name} was not found: {(root / path).absolute()} is missing. {how}")


def require_superclasses(superclasses: str, known: Collection[str], name: str) -> None:
    """UserError unless data set ``name`` has this choice of coarse classes."""
    if superclasses not in known:
        raise UserError(f"Data set {name} has no superclasses {superclasses!r}: choose one of {', '.join(known)}.")


def shared_values(labels: np.ndarray, values: Sequence[str], what: str, how: str) -> list[str]:
    """The value that all pictures of a class share, for each class 0, 1, 2 and so on.

    Args:
        labels: (N,) int class ids from 0; the official ones, which the error names, begin at 1.
        values: one for each picture, for example the name of its class.
        what: the name of the values, for the error.

    Raises:
        UserError: an id is missing or negative, or the pictures of a class differ.
    """
    found = np.asarray(values, dtype=np.str_)
    ids, first = np.unique(labels, return_index=True)
    if not np.array_equal(ids, np.arange(len(ids))):
        raise UserError(f"The class ids of the pictures are not 1, 2, 3 and so on without a gap. {how}")
    shared = found[first]
    odd = np.flatnonzero(shared[labels] != found)
    if len(odd):
        row = odd[0]
        raise UserError(f"Class {labels[row] + 1} has two {what}, {shared[labels[row]]} and {found[row]}. {how}")
    return shared.tolist()


def named_hierarchy(fine: Sequence[str], coarse: Sequence[str] | None, name: str, how: str) -> Hierarchy:
    """The hierarchy of classes ``fine``, of which each lies in the coarse class named in ``coarse``.

    Coarse classes are in the order of their names. Without ``coarse`` both levels are the same.

    Raises:
        UserError: two classes have the same name.
    """
    twice = [class_name for class_name, count in Counter(fine).items() if count > 1]
    if twice:
        raise UserError(f"Data set {name} has two classes named {twice[0]!r}. {how}")
    if coarse is None:
        return Hierarchy.flat(fine)
    names, fine_to_coarse = np.unique(np.asarray(coarse, dtype=np.str_), return_inverse=True)
    return Hierarchy(tuple(fine), tuple(names.tolist()), fine_to_coarse)


def photograph_catalogue(
    name: str,
    root: Path,
    keys: Sequence[str],
    fine: np.ndarray,
    split: np.ndarray,
    hierarchy: Hierarchy,
    *,
    source: str,
    how: str,
    licence: str = RIGHTS,
) -> Catalogue:
    """The catalogue of a published data set of picture files, which may not be shipped.

    Raises:
        UserError: a picture is listed twice; it might stand in two splits.
    """
    paths = np.asarray(keys, dtype=np.str_)
    listed, counts = np.unique(paths, return_counts=True)
    if (counts > 1).any():
        raise UserError(f"The lists of data set {name} name {listed[counts > 1][0]} more than once. {how}")
    return Catalogue(
        name=name,
        root=root,
        keys=paths,
        fine=fine,
        coarse=hierarchy.fine_to_coarse[fine],
        split=split,
        hierarchy=hierarchy,
        default_labels="fine",
        reader=FileReader(root, paths),
        publishable=False,
        licence=licence,
        source=source,
    )
