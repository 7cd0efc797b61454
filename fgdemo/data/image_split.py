"""One split of a catalogue as a torch data set."""

from __future__ import annotations

import copy
import logging
import operator
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.rng import keyed_random, keyed_seed
from fgdemo.errors import UserError

logger = logging.getLogger(__name__)

_reported: set[tuple[str, str, int]] = set()


class Sample(NamedTuple):
    """``image`` is the transform's output, or the RGB picture without one; ``index`` is a dataset index."""

    image: Any
    label: int
    index: int
    key: str


class ImageSplit(Dataset):
    """The samples of one split, with labels of one level.

    An item is a row 0..n-1 of the split, or a pair (row, epoch) as `EpochSampler` produces; a plain row means
    epoch 0. The transform's random draws are keyed by (``augment_seed``, epoch, dataset index): a sample is
    bit-identical whatever the worker, the order or a restart, and the global random states of `random`,
    `numpy.random` and torch are left as they were.

    Args:
        labels: "fine" or "coarse"; None means the data set's default.
        transform: picture -> anything, or None for the picture itself.
        cache: keep decoded pictures in memory as uint8, at their full size, filled as they are first read or
            all at once by `preload`. Copies sent to spawned workers start empty.
        strict: a picture that cannot be read raises UserError. Otherwise it is logged once per process and
            replaced by the next readable picture of the same class, whose index and key the sample then has.

    Raises:
        UserError: the data set has no such split or level.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        split: str = "train",
        *,
        labels: str | None = None,
        transform: Callable[[Image.Image], Any] | None = None,
        augment_seed: int = 0,
        cache: bool = False,
        strict: bool = False,
    ) -> None:
        self.catalogue = catalogue
        self.split = split
        self.labels = labels or catalogue.default_labels
        self.rows = catalogue.rows(split)
        if not len(self.rows):
            where = f" under {catalogue.root}" if catalogue.root else ""
            raise UserError(f"Data set {catalogue.name}{where} has no pictures in its {split} split.")
        self.targets = catalogue.targets(self.labels)[self.rows]
        self.class_names = catalogue.class_names(self.labels)
        self.transform = transform
        self.augment_seed = augment_seed
        self.strict = strict
        self._cache: list[np.ndarray | None] | None = [None] * len(self.rows) if cache else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._cache is not None:
            state["_cache"] = [None] * len(self.rows)
        return state

    def __getitem__(self, item: int | tuple[int, int]) -> Sample:
        row, epoch = item if isinstance(item, tuple) else (item, 0)
        row = operator.index(row)
        if not 0 <= row < len(self.rows):
            raise IndexError(f"row {row} of a split with {len(self.rows)} samples")
        image, shown = self._read_or_replace(row)
        if self.transform is not None:
            seed = keyed_seed("augment", self.augment_seed, int(epoch), int(self.rows[row]))
            with keyed_random(seed):
                image = self.transform(image)
        index = int(self.rows[shown])
        return Sample(image, int(self.targets[row]), index, str(self.catalogue.keys[index]))

    def with_transform(self, transform: Callable[..., Any] | None) -> ImageSplit:
        """The same samples, and the same cache, under another transform."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def preload(self, threads: int = 4) -> None:
        """Decode every picture into the cache now, so that forked workers share it.

        Raises ValueError without ``cache=True``; unreadable pictures are met again when asked for.
        """
        if self._cache is None:
            raise ValueError("preload needs cache=True")

        def read(row: int) -> None:
            if self.strict:
                self._read(row)
            else:
                self._read_or_none(row)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(read, range(len(self))):
                pass

    def _read(self, row: int) -> Image.Image:
        if self._cache is None:
            return self.catalogue.reader(int(self.rows[row]))
        pixels = self._cache[row]
        if pixels is None:
            pixels = np.asarray(self.catalogue.reader(int(self.rows[row])), dtype=np.uint8)
            self._cache[row] = pixels
        return Image.fromarray(pixels)

    def _read_or_none(self, row: int) -> Image.Image | None:
        try:
            return self._read(row)
        except UserError as error:
            index = int(self.rows[row])
            mark = (self.catalogue.name, str(self.catalogue.root), index)
            if mark not in _reported:
                _reported.add(mark)
                logger.warning("%s Another picture of its class stands in for it.", error)
            return None

    def _read_or_replace(self, row: int) -> tuple[Image.Image, int]:
        """The picture of ``row``, or of the next readable row of its class, and the row it came from."""
        if self.strict:
            return self._read(row), row
        image = self._read_or_none(row)
        if image is not None:
            return image, row
        peers = np.flatnonzero(self.targets == self.targets[row])
        start = int(np.searchsorted(peers, row)) + 1
        for peer in np.roll(peers, -start)[:-1].tolist():
            image = self._read_or_none(peer)
            if image is not None:
                return image, peer
        name = self.class_names[self.targets[row]]
        raise UserError(f"No picture of class {name!r} in the {self.split} split of {self.catalogue.name} can be read.")
