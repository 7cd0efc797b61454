"""What the tests of the published data sets of photographs share; their miniatures are made by the tests."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fgdemo.data import Catalogue
from fgdemo.errors import UserError


def write_image_tables(folder: Path, pictures: dict[str, tuple[str, int, bool]], names: dict[int, str]) -> None:
    """The tables of CUB-200-2011 and NABirds: picture id -> path, class id, whether for training.

    Only ``images.txt`` is in the order given, so that rows have to be matched by their ids.
    """
    backwards = list(reversed(pictures.items()))
    rows = {
        "images.txt": [f"{key} {path}" for key, (path, _, _) in pictures.items()],
        "image_class_labels.txt": [f"{key} {class_id}" for key, (_, class_id, _) in backwards],
        "train_test_split.txt": [f"{key} {int(train)}" for key, (_, _, train) in backwards],
        "classes.txt": [f"{class_id} {name}" for class_id, name in names.items()],
    }
    for name, lines in rows.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def fine_labels(catalogue: Catalogue, *splits: str) -> dict[str, int]:
    """Class id of each picture of some splits, by its path."""
    rows = np.concatenate([catalogue.rows(split) for split in splits])
    return dict(zip(catalogue.keys[rows].tolist(), catalogue.fine[rows].tolist(), strict=True))


def check_drawn_validation(load: Callable[..., Catalogue], per_class: int) -> None:
    """Validation is drawn from training alone: ``per_class`` pictures of each class, other ones for other seeds."""
    first, again, other = load(), load(), load(seed=1)
    assert np.array_equal(first.split, again.split)
    assert np.array_equal(first.keys, other.keys)
    assert not np.array_equal(first.rows("val"), other.rows("val"))
    for catalogue in (first, other):
        held = np.bincount(catalogue.fine[catalogue.rows("val")], minlength=len(catalogue.class_names("fine")))
        assert set(held.tolist()) == {per_class}
        assert np.array_equal(catalogue.rows("test"), load(val_fraction=0.0).rows("test"))
    assert len(load(val_fraction=0.0).rows("val")) == 0
    assert len(load(val_fraction=0.5).rows("val")) > len(first.rows("val"))


def check_unreadable_pictures_are_named(catalogue: Catalogue) -> None:
    """The catalogue knows nothing of pixels; whoever reads a picture that is missing or none gets its path."""
    missing, damaged = (catalogue.root / key for key in catalogue.keys[:2])
    missing.unlink()
    damaged.write_bytes(b"this is no picture")
    for row, path in enumerate((missing, damaged)):
        with pytest.raises(UserError, match=f"Not a readable image: {re.escape(str(path))}"):
            catalogue.reader(row)
    assert catalogue.reader(2).mode == "RGB"
