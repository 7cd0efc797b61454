"""A folder of class folders: the user's own pictures."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.files import FileReader, require_root
from fgdemo.data.hierarchy import Hierarchy
from fgdemo.data.registry import register
from fgdemo.data.splits import hold_out
from fgdemo.errors import UserError

logger = logging.getLogger(__name__)

# fmt: off
EXTENSIONS = frozenset((
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
))
# fmt: on
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SHOWN = 5

HOW = "Expected ROOT/train/CLASS/picture.jpg (with val/ and test/ beside train/) or ROOT/CLASS/picture.jpg."


@register("imagefolder")
def imagefolder(root: Path | None, *, seed: int, val_fraction: float = 0.1, test_fraction: float = 0.0) -> Catalogue:
    """Pictures in class folders; nothing is decoded here.

    Layouts: ``train/`` with ``val/`` (or ``valid/``, ``validation/``) and ``test/``, each optional besides
    ``train/``; or class folders right under ``root``. Missing splits are drawn from the training pictures,
    stratified by fine class: ``val_fraction`` of them by ``seed``; ``test_fraction`` of the whole always with
    seed 0, so that test pictures stay the same whatever the run's seed (none unless asked for).

    Hierarchy: where no class folder holds pictures itself and all hold folders with pictures, the outer folders
    are the coarse and the inner ones the fine classes (named ``coarse/fine`` where the inner name alone is
    ambiguous). Otherwise every picture anywhere below a class folder belongs to it, and both levels are equal.

    Classes are in the order of their names. Hidden files are ignored, links are followed, loops are not.
    Folders without pictures, and class names that differ by case only, are reported in the log.

    Raises:
        UserError: no such folder, no pictures, no permission, or a class that is missing from ``train/``.
    """
    root = require_root(root, "imagefolder", HOW)
    scan = _Scan(root)
    folders = _split_folders(root)
    for split, folder in folders.items():
        scan.add_split(split, folder)
    if not scan.files:
        raise UserError(f"No pictures found in {root}. {HOW}")
    scan.report()

    outer, inner, fine = scan.classes()
    names = [f"{o}/{i}" if i is not None else o for o, i in zip(outer, inner, strict=True)]
    if inner[0] is None:
        hierarchy = Hierarchy.flat(names)
    else:
        seen = Counter(inner)
        coarse_names, fine_to_coarse = np.unique(np.array(outer), return_inverse=True)
        fine_names = [i if seen[i] == 1 else name for i, name in zip(inner, names, strict=True)]
        hierarchy = Hierarchy(tuple(fine_names), tuple(coarse_names.tolist()), fine_to_coarse)

    split = np.array([file.split for file in scan.files], dtype="<U5")
    absent = np.setdiff1d(fine, fine[split == "train"])
    if len(absent):
        raise UserError(
            f"{len(absent)} classes have no pictures in {folders['train']}: "
            f"{_some([names[i] for i in absent])}. Add some, or remove them from the other splits."
        )
    # Test first, and by a fixed seed: a run's seed moves pictures between training and validation only.
    if "test" not in folders and test_fraction:
        split = hold_out(split, fine, "test", test_fraction, seed=0)
    if "val" not in folders:
        split = hold_out(split, fine, "val", val_fraction, seed=seed)
    keys = np.array([file.key for file in scan.files])
    return Catalogue(
        name="imagefolder",
        root=root,
        keys=keys,
        fine=fine,
        coarse=hierarchy.fine_to_coarse[fine],
        split=split,
        hierarchy=hierarchy,
        default_labels="fine",
        reader=FileReader(root, keys),
        publishable=True,
        licence="The rights to the pictures lie with whoever made the folder.",
        source=f"{len(keys):,} pictures from the folder {root.resolve().name}.",
    )


@dataclass(frozen=True)
class _File:
    split: str
    key: str
    parts: tuple[str, ...]  # class folder, folders below it, file name


@dataclass
class _Scan:
    """What lies under a root, gathered split by split."""

    root: Path
    files: list[_File] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    unnameable: list[str] = field(default_factory=list)

    def add_split(self, split: str, folder: Path) -> None:
        for entry in _entries(folder):
            if not entry.is_dir():
                continue
            before = len(self.files)
            for parts in picture_paths(entry.path, (entry.name,), set()):
                self._add(split, folder, parts)
            if len(self.files) == before:
                self.empty.append(os.path.relpath(entry.path, self.root))

    def _add(self, split: str, folder: Path, parts: tuple[str, ...]) -> None:
        key = folder.relative_to(self.root).joinpath(*parts).as_posix()
        if is_unicode(key):
            self.files.append(_File(split, key, parts))
        else:
            self.unnameable.append(ascii(key))

    def classes(self) -> tuple[list[str], list[str | None], np.ndarray]:
        """Outer and inner folder name of each class (inner None without a hierarchy), class id of each file."""
        nested = all(len(file.parts) > 2 for file in self.files)
        pairs = [(file.parts[0], file.parts[1] if nested else "") for file in self.files]
        classes = sorted(set(pairs))
        ids = {pair: i for i, pair in enumerate(classes)}
        fine = np.array([ids[pair] for pair in pairs], dtype=np.int64)
        return [o for o, _ in classes], [i if nested else None for _, i in classes], fine

    def report(self) -> None:
        if self.empty:
            logger.warning("%d folders hold no pictures: %s.", len(self.empty), _some(self.empty))
        if self.unnameable:
            logger.warning(
                "%d files are left out, their names are not Unicode: %s.",
                len(self.unnameable),
                _some(self.unnameable),
            )
        outer = {file.parts[0] for file in self.files}
        folded = Counter(name.casefold() for name in outer)
        alike = sorted(name for name in outer if folded[name.casefold()] > 1)
        if alike:
            logger.warning("These classes differ by upper and lower case only: %s.", _some(alike))


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split, or the root as the training split of a flat layout."""
    found: dict[str, Path] = {}
    for entry in _entries(root):
        split = SPLIT_FOLDERS.get(entry.name.lower())
        if split and entry.is_dir():
            if split in found:
                raise UserError(f"{found[split]} and {entry.path} are both the {split} split: keep one.")
            found[split] = Path(entry.path)
    if "train" in found:
        return found
    if found and not any(e.is_dir() and e.name.lower() not in SPLIT_FOLDERS for e in _entries(root)):
        raise UserError(f"{root} has {_some(sorted(p.name for p in found.values()))} but no train folder. {HOW}")
    return {"train": root}


def _entries(folder: str | Path) -> list[os.DirEntry]:
    """Visible entries by name."""
    try:
        with os.scandir(folder) as entries:
            visible = [e for e in entries if not e.name.startswith((".", "__MACOSX"))]
    except PermissionError:
        raise UserError(f"No permission to read the folder {folder}.") from None
    return sorted(visible, key=lambda entry: entry.name)


def picture_paths(folder: str, parts: tuple[str, ...], visited: set[tuple[int, int]]) -> Iterator[tuple[str, ...]]:
    """Paths of the pictures below ``folder``, each real folder once however links lead to it."""
    status = os.stat(folder)
    mark = (status.st_dev, status.st_ino)
    if mark in visited:
        return
    visited.add(mark)
    for entry in _entries(folder):
        if entry.is_dir():
            yield from picture_paths(entry.path, (*parts, entry.name), visited)
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file():
            yield (*parts, entry.name)


def is_unicode(key: str) -> bool:
    """Whether a file's name is text; any bytes may be one on some systems."""
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _some(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
