"""Text tables of data sets, one row a line with its first word the key, and their JSON files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fgdemo.data.files import require_files
from fgdemo.errors import UserError

Value = TypeVar("Value")

IMAGES, LABELS, SPLIT, CLASSES = "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"


@dataclass(frozen=True)
class ImageTables:
    """What the tables of CUB-200-2011 and NABirds say, pictures in the order of ``images.txt``.

    Attributes:
        keys: (N,) str, POSIX paths of the pictures relative to the data root.
        class_ids: (N,) int64, the official ids, which need not be consecutive.
        split: (N,) str, ``train`` or ``test``.
        names: the name of every official id, used or not.
    """

    keys: np.ndarray
    class_ids: np.ndarray
    split: np.ndarray
    names: dict[int, str]


def read_lines(path: Path, how: str) -> list[str]:
    """The lines of a UTF-8 text, runs of white space as one space; UserError if it is none."""
    try:
        return [" ".join(line.split()) for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file. {how}") from error


def read_json(path: Path, how: str) -> Any:
    """What a JSON file holds; UserError if it is none, as when its download broke off."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not a whole JSON file. {how}") from error


def read_table(path: Path, how: str) -> dict[str, str]:
    """The rest of each line under its first word, in the order of the lines; empty ones do not count.

    Raises:
        UserError: the file is no text, or a line has one word only or repeats a key.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, how), start=1):
        key, _, value = line.partition(" ")
        if not line:
            continue
        if not value or key in table:
            raise UserError(f"{path}, line {number}: expected a new id and its value, got {line!r}. {how}")
        table[key] = value
    return table


def read_ids(path: Path, how: str) -> dict[str, int]:
    """Like `read_table`, where the values are whole numbers."""
    table = read_table(path, how)
    for key, value in table.items():
        if not value.isdecimal():
            raise UserError(f"{path}: expected a whole number after {key}, got {value!r}. {how}")
    return {key: int(value) for key, value in table.items()}


def number_keys(table: dict[str, Value], path: Path, how: str) -> dict[int, Value]:
    """A table of ``path`` by number; UserError if a key is none."""
    for key in table:
        if not key.isdecimal():
            raise UserError(f"{path}: {key!r} is not the number of a class. {how}")
    return {int(key): value for key, value in table.items()}


def read_image_tables(root: Path, folder: str, name: str, how: str) -> ImageTables:
    """The four tables in ``root / folder``, which have the pictures in a folder ``images`` beside them.

    Raises:
        UserError: one of them is missing, cannot be understood, or contradicts another.
    """
    tables = (IMAGES, LABELS, SPLIT, CLASSES)
    require_files(root, tuple(f"{folder}/{part}" for part in (*tables, "images")), name, how)
    images, labels, split, classes = (root / folder / table for table in tables)
    paths, ids, in_train = read_table(images, how), read_ids(labels, how), read_ids(split, how)
    for path, table in ((labels, ids), (split, in_train)):
        odd = sorted(paths.keys() ^ table.keys())
        if odd:
            raise UserError(f"{path} and {images.name} disagree about picture {odd[0]}. {how}")
    names = number_keys(read_table(classes, how), classes, how)
    for key, class_id in ids.items():
        if class_id not in names:
            raise UserError(f"{labels}: picture {key} has class {class_id}, which {classes.name} lacks. {how}")
    for key, flag in in_train.items():
        if flag not in (0, 1):
            raise UserError(f"{split}: expected 1 for training or 0 for testing after {key}, got {flag}. {how}")
    return ImageTables(
        keys=np.array([f"{folder}/images/{path}" for path in paths.values()]),
        class_ids=np.array([ids[key] for key in paths], dtype=np.int64),
        split=np.array(["train" if in_train[key] else "test" for key in paths]),
        names=names,
    )
