"""Which patches of a picture lie on its telling part and on its object, for data sets that know where these are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from fgdemo.data import Catalogue, ImageSplit, Preprocessing, crop_box, eval_transform
from fgdemo.models import Encoder
from fgdemo.models.field import field_shift

Centre = Literal["field", "cell"]


class Located(NamedTuple):
    """A preprocessed picture, its dataset index, and which of N patch centres lie on the part and on the object.

    on_part (N,) bool; on_object (N,) bool, or (0,) where the mask is not known or not asked for.
    """

    image: Tensor
    index: int
    on_part: np.ndarray
    on_object: np.ndarray


class LocatedSplit(Dataset):
    """A split of untransformed pictures as the encoder sees it, with the patches that show part and object.

    Args:
        split: of a catalogue with "part_box" (N, 4) x0, y0, x1, y1 in pixels in its truth.
        centre: the middle of what a patch's embedding reads, or of its cell.
        with_object: look the object up too, where the catalogue's reader has a `mask`.
    """

    def __init__(
        self, split: ImageSplit, encoder: Encoder, preprocessing: Preprocessing, *, centre: Centre, with_object: bool
    ) -> None:
        self.split, self.preprocessing = split, preprocessing
        self.boxes = split.catalogue.truth["part_box"]
        self.mask = mask_reader(split.catalogue) if with_object else None
        self.grid = encoder.grid_of(encoder.input_size)
        self.shift = field_shift(encoder.net) if centre == "field" else (0.0, 0.0)
        self.transform = eval_transform(preprocessing)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> Located:
        sample = self.split[row]
        points = patch_centres(sample.image.size, self.preprocessing, self.grid, self.shift)
        on_object = np.zeros(0, bool) if self.mask is None else in_mask(points, self.mask(sample.index))
        return Located(self.transform(sample.image), sample.index, in_box(points, self.boxes[sample.index]), on_object)


def as_it_is(picture: Image.Image) -> Image.Image:
    """The transform of a split whose pictures `LocatedSplit` transforms; it pickles."""
    return picture


def mask_reader(catalogue: Catalogue) -> Callable[[int], np.ndarray] | None:
    """Dataset index -> (height, width) bool of the picture's pixels that show the object, where that is known."""
    return getattr(catalogue.reader, "mask", None)


def patch_centres(
    size: tuple[int, int], preprocessing: Preprocessing, grid: tuple[int, int], shift: tuple[float, float] = (0, 0)
) -> np.ndarray:
    """(h w, 2) float64 x, y of the patches in raster order, in pixels of a picture of (width, height).

    `shift` x, y in pixels of the network's input is added to the middle of every cell.
    """
    x0, y0, x1, y1 = crop_box(size, preprocessing)
    height, width = preprocessing.input_size[1:]
    h, w = grid
    x = x0 + ((np.arange(w) + 0.5) / w + shift[0] / width) * (x1 - x0)
    y = y0 + ((np.arange(h) + 0.5) / h + shift[1] / height) * (y1 - y0)
    return np.stack([np.tile(x, h), np.repeat(y, w)], axis=1)


def in_box(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(N, 2) x, y -> (N,) bool; x0, y0 belong to the box, x1, y1 do not."""
    return ((points >= box[:2]) & (points < box[2:])).all(axis=1)


def in_mask(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(N, 2) x, y and the (height, width) bool of a picture -> (N,) bool, False beyond the picture."""
    column, row = np.floor(points).astype(np.int64).T
    height, width = mask.shape
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return within & mask[row.clip(0, height - 1), column.clip(0, width - 1)]
