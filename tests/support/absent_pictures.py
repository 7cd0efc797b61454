"""A checkpoint that carries no pictures, its data set as files, and torchvision without a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tiny_checkpoint import picture, write_tiny

from fgdemo.checkpoint import read_checkpoint, write_checkpoint
from fgdemo.gallery import Gallery

LICENCE = "The rights to them lie with <their> owners."
SIZE = (192, 128)
FLOWERS, GROCERIES = "flowers-102/jpg", "dataset/train/Fruit"


def write_bare(directory: Path, dataset: str = "flowers102", prefix: str = FLOWERS) -> Path:
    """The tiny checkpoint as one of a data set whose pictures, ``prefix/image_00.png`` ..., may not be passed on."""
    with TemporaryDirectory() as folder:
        source = read_checkpoint(write_tiny(Path(folder) / "tiny", training={"dataset": dataset, "licence": LICENCE}))
        gallery = Gallery.from_checkpoint(source)
        bare = replace(
            gallery,
            keys=[f"{prefix}/image_{row:02d}.png" for row in range(len(gallery))],
            thumbnails=np.zeros(0, np.uint8),
            thumbnail_offsets=np.zeros_like(gallery.thumbnail_offsets),
        )
        return write_checkpoint(
            directory,
            config=source.config,
            weights=source.weights(),
            gallery=bare.to_tensors(),
            subclasses=source.subclasses,
        )


def write_pictures(root: Path, prefix: str = FLOWERS) -> Path:
    """The pictures of that checkpoint, larger than a thumbnail."""
    (root / prefix).mkdir(parents=True)
    for row in range(12):
        picture(row, SIZE).save(root / prefix / f"image_{row:02d}.png", compress_level=1)
    return root


def stand_in(*results: Callable[[Path], Any], calls: list[Path]) -> type:
    """A class like those of torchvision.datasets: each construction does what the next of ``results`` does."""

    class Flowers102:
        def __init__(self, root: str | Path, split: str = "train", *, download: bool = False) -> None:
            assert download
            calls.append(Path(root))
            results[min(len(calls), len(results)) - 1](Path(root))

    return Flowers102


def with_archive(root: Path) -> None:
    """What torchvision leaves: the pictures, and the archive they came in beside them."""
    write_pictures(root)
    (root / "flowers-102" / "102flowers.tgz").write_bytes(bytes(5000))
