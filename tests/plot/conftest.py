"""Checkpoints to draw: digits, the same under coarse classes, a tiny one, one with hostile names."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.digits_checkpoint import write_digits
from support.pages import rewrite, write_hostile
from tiny_checkpoint import write_tiny

from fgdemo.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 pictures of four digits in all splits, two subclasses a class."""
    return write_digits(tmp_path_factory.mktemp("plot") / "digits")


@pytest.fixture(scope="module")
def parity(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures under their coarse classes, without subclasses."""
    checkpoint = read_checkpoint(digits)
    tensors = dict(checkpoint.gallery_tensors())
    tensors["class_id"] = tensors["class_id"] % 2
    tensors["subclass_id"] = tensors["subclass_id"] * 0 - 1
    tensors["centroids"], tensors["centroid_ids"] = tensors["centroids"][:0], tensors["centroid_ids"][:0]
    subclasses = {"schema": 1, "next_id": 0, "engine": "none", "seed": 0, "classes": []}
    config = {**checkpoint.config, "num_classes": 2, "label_names": ["even", "odd"]}
    config["fgdemo"] = {**config["fgdemo"], "superclass_names": ["even", "odd"]}
    return rewrite(
        tmp_path_factory.mktemp("plot") / "parity", checkpoint, config=config, gallery=tensors, subclasses=subclasses
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("plot") / "tiny")


@pytest.fixture(scope="module")
def hostile(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every name in it tries to leave its place."""
    return write_hostile(tmp_path_factory.mktemp("plot") / "hostile", tiny)


@pytest.fixture(scope="module")
def bare(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny one without thumbnails."""
    checkpoint = read_checkpoint(tiny)
    tensors = dict(checkpoint.gallery_tensors())
    tensors["thumbnails"] = tensors["thumbnails"][:0]
    tensors["thumbnail_offsets"] = tensors["thumbnail_offsets"] * 0
    return rewrite(tmp_path_factory.mktemp("plot") / "bare", checkpoint, gallery=tensors)
