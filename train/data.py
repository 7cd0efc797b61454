"""From options to data sets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fgdemo.data import Catalogue, ImageSplit, Preprocessing, eval_transform, load_catalogue, train_transform
from train.options import AugmentOptions, DataOptions


def open_catalogue(data: DataOptions, seed: int) -> Catalogue:
    """The data set that the options name; `seed` draws its validation split where no official one exists."""
    catalogue = load_catalogue(
        data.data,
        data.data_root,
        seed=seed,
        superclasses=data.superclasses,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
    )
    return catalogue.with_val_in_train() if data.include_val else catalogue


def open_splits(
    catalogue: Catalogue,
    data: DataOptions,
    augment: AugmentOptions,
    preprocessing: Preprocessing,
    seed: int,
) -> tuple[ImageSplit, ImageSplit | None]:
    """The training split with its augmentation, and the validation split if the data set has one."""
    common: dict[str, Any] = {"labels": data.labels, "cache": data.cache, "strict": data.strict}
    train = ImageSplit(
        catalogue,
        "train",
        transform=train_transform(preprocessing, **asdict(augment)),
        augment_seed=seed,
        **common,
    )
    val = None
    if len(catalogue.rows("val")):
        val = ImageSplit(catalogue, "val", transform=eval_transform(preprocessing), **common)
    if data.cache:
        # Before the loader forks its workers, so that all of them share one copy.
        for split in filter(None, (train, val)):
            split.preload()
    return train, val
