"""Pictures to try a checkpoint on: of its data set, where that travels with the code, else photographs that do."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import NamedTuple

from PIL import Image

from fgdemo.errors import UserError

COUNT = 8
# Drawn pictures are made in blocks of neighbouring rows; staying close together costs one block.
_WINDOW = 64
# Data sets that have to be fetched -> scikit-learn's sample photographs worth trying on them: file, what it shows.
_PHOTOGRAPHS = {"flowers102": (("flower.jpg", "a dahlia"), ("china.jpg", "a temple, no flower"))}
_lock = threading.Lock()


class Example(NamedTuple):
    image: Image.Image
    caption: str


def examples(dataset: str | None) -> tuple[Example, ...]:
    """Test pictures of different classes, or sample photographs; none where there are neither."""
    with _lock:
        return _examples(dataset)


@lru_cache(maxsize=8)
def _examples(dataset: str | None) -> tuple[Example, ...]:
    from fgdemo.data import load_catalogue

    try:
        catalogue = load_catalogue(dataset or "")
    except UserError:
        return _photographs(dataset)
    rows = catalogue.rows("test")[:_WINDOW]
    targets = catalogue.targets(catalogue.default_labels)
    names = catalogue.class_names(catalogue.default_labels)
    first: dict[int, int] = {}
    for row in rows.tolist():
        first.setdefault(int(targets[row]), row)
    chosen = list(first.values())[:COUNT]
    return tuple(Example(catalogue.reader(row), names[targets[row]]) for row in chosen)


def _photographs(dataset: str | None) -> tuple[Example, ...]:
    from sklearn.datasets import load_sample_image

    names = _PHOTOGRAPHS.get(dataset or "", ())
    return tuple(Example(Image.fromarray(load_sample_image(name)), caption) for name, caption in names)
