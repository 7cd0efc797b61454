"""Pictures to try a checkpoint on, where its data set travels with the code."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import NamedTuple

from PIL import Image

from fgdemo.errors import UserError

COUNT = 8
# Drawn pictures are made in blocks of neighbouring rows; staying close together costs one block.
_WINDOW = 64
_lock = threading.Lock()


class Example(NamedTuple):
    image: Image.Image
    class_name: str


def examples(dataset: str | None) -> tuple[Example, ...]:
    """Test pictures of different classes; none where the data set is unknown here or has to be fetched."""
    with _lock:
        return _examples(dataset)


@lru_cache(maxsize=8)
def _examples(dataset: str | None) -> tuple[Example, ...]:
    from fgdemo.data import load_catalogue

    try:
        catalogue = load_catalogue(dataset or "")
    except UserError:
        return ()
    rows = catalogue.rows("test")[:_WINDOW]
    targets = catalogue.targets(catalogue.default_labels)
    names = catalogue.class_names(catalogue.default_labels)
    first: dict[int, int] = {}
    for row in rows.tolist():
        first.setdefault(int(targets[row]), row)
    chosen = list(first.values())[:COUNT]
    return tuple(Example(catalogue.reader(row), names[targets[row]]) for row in chosen)
