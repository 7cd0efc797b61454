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


def require_whole(folder: Path, missing: Sequence[str], listed: int, name: str, how: str) -> None:
    """UserError if some of the ``listed`` entries of a folder are ``missing``, as after a download in part."""
    if missing:
        raise UserError(
            f"Data set {name} is there in part: {len(missing):,} of {listed:,} listed entries are missing from "
            f"{folder.absolute()}, the first is {missing[0]}. {how}"
        )


def require_superclasses(superclasses: str, known: Collection[str], name: str) -> None:
    """UserError unless data set ``name`` has this choice of coarse classes."""
    if superclasses not in known:
        raise UserError(f"Data set {name} has no superclasses {superclasses!r}: choose one of {', '.join(known)}.")


def shared_values(
    labels: np.ndarray, values: Sequence[str], what: str, how: str, *, official_first: int = 1
) -> list[str]:
    """The value that all pictures of a class share, for each class 0, 1, 2 and so on.

    Args:
        labels: (N,) int class ids from 0.
        values: one for each picture, for example the name of its class.
        what: the name of the values, for the error.
        official_first: the least of the official ids, which the error names.

    Raises:
        UserError: an id is missing or negative, or the pictures of a class differ.
    """
    found = np.asarray(values, dtype=np.str_)
    ids, first = np.unique(labels, return_index=True)
    if not np.array_equal(ids, np.arange(len(ids))):
        official = ", ".join(str(official_first + i) for i in range(3))
        raise UserError(f"The class ids of the pictures are not {official} and so on without a gap. {how}")
    shared = found[first]
    odd = np.flatnonzero(shared[labels] != found)
    if len(odd):
        row = odd[0]
        official = labels[row] + official_first
        raise UserError(f"Class {official} has two {what}, {shared[labels[row]]} and {found[row]}. {how}")
    return shared.tolist()


def told_apart(names: Sequence[str], marks: Sequence[str]) -> list[str]:
    """``names``, those that occur more than once with their mark in brackets."""
    count = Counter(names)
    return [f"{name} ({mark})" if count[name] > 1 else name for name, mark in zip(names, marks, strict=True)]


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
    # A set, since sorting two million paths takes eight times as long.
    if len(set(keys)) < len(keys):
        twice = min(key for key, count in Counter(keys).items() if count > 1)
        raise UserError(f"The lists of data set {name} name {twice} more than once. {how}")
    paths = np.asarray(keys, dtype=np.str_)
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
