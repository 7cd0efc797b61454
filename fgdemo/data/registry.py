"""Data sets by name. A new one is one file in this folder with one function decorated by `register`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.image_split import ImageSplit
from fgdemo.errors import UserError

Builder = Callable[..., Catalogue]

_BUILDERS: dict[str, Builder] = {}


def register(name: str) -> Callable[[Builder], Builder]:
    """Make ``builder(root, *, seed, ...) -> Catalogue`` known as ``name``.

    A builder declares whichever of the keywords ``superclasses``, ``val_fraction`` and ``test_fraction`` it
    understands; choosing one that it does not declare is an error for the user. Raises ValueError for a name
    that is taken.
    """

    def add(builder: Builder) -> Builder:
        if name in _BUILDERS:
            raise ValueError(f"data set {name!r} is registered twice")
        _BUILDERS[name] = builder
        return builder

    return add


def dataset_names() -> list[str]:
    """All registered names, sorted."""
    _import_builders()
    return sorted(_BUILDERS)


def load_catalogue(
    name: str,
    root: str | Path | None = None,
    *,
    seed: int = 0,
    superclasses: str | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
) -> Catalogue:
    """The catalogue of data set ``name`` under ``root``; no picture is decoded.

    Args:
        seed: draws the validation split where the data set has no official one.
        superclasses: which coarse classes, where there is a choice (``digits``).
        val_fraction: share of the training pictures held out for validation; None means the data set's own.
        test_fraction: share held out for testing, of a data set without a test split.

    Raises:
        UserError: unknown name, missing data, or an option that this data set does not have.
    """
    _import_builders()
    if name not in _BUILDERS:
        close = get_close_matches(name, _BUILDERS, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise UserError(f"Unknown data set {name!r}. {hint}Choose one of {', '.join(sorted(_BUILDERS))}.")
    builder = _BUILDERS[name]
    options: dict[str, Any] = {
        "superclasses": superclasses,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
    }
    options = {key: value for key, value in options.items() if value is not None}
    known = inspect.signature(builder).parameters
    for key, value in options.items():
        if key not in known:
            raise UserError(f"Data set {name} has no option {key} (given: {value}); leave it out.")
    return builder(None if root is None else Path(root).expanduser(), seed=seed, **options)


def load_training_catalogue(training: Mapping[str, Any], root: str | Path | None = None) -> Catalogue:
    """The data set that a checkpoint's training summary names, split as it was then.

    Raises:
        UserError: it names none that can be loaded here, or the data are missing.
    """
    _import_builders()
    if training.get("dataset") not in _BUILDERS:
        raise UserError(
            "The checkpoint was not trained on a labelled data set that is known here "
            f"({training.get('dataset', 'none is named')}), so there are no labels to compare with."
        )
    catalogue = load_catalogue(
        training["dataset"],
        root,
        seed=training.get("seed", 0),
        superclasses=training.get("superclasses"),
        val_fraction=training.get("val_fraction"),
        test_fraction=training.get("test_fraction"),
    )
    return catalogue.with_val_in_train() if training.get("include_val") else catalogue


def load_dataset(
    name: str,
    root: str | Path | None = None,
    split: str = "train",
    *,
    labels: str | None = None,
    transform: Callable | None = None,
    seed: int = 0,
    augment_seed: int = 0,
    superclasses: str | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    cache: bool = False,
    strict: bool = False,
) -> ImageSplit:
    """One split of a data set, ready for a DataLoader: `load_catalogue` and `ImageSplit` in one call."""
    catalogue = load_catalogue(
        name,
        root,
        seed=seed,
        superclasses=superclasses,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
    )
    return ImageSplit(
        catalogue,
        split,
        labels=labels,
        transform=transform,
        augment_seed=augment_seed,
        cache=cache,
        strict=strict,
    )


def _import_builders() -> None:
    """Import every module of this package, so that each `register` has run."""
    package = importlib.import_module("fgdemo.data")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"fgdemo.data.{module.name}")
