"""What the data sets made of picture files share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fgdemo.data.images import open_image
from fgdemo.errors import UserError


@dataclass(frozen=True)
class FileReader:
    """Dataset index -> RGB picture of the file ``root / keys[index]``."""

    root: Path
    keys: np.ndarray

    def __call__(self, index: int) -> Image.Image:
        return open_image(self.root / str(self.keys[index]))


def require_root(root: Path | None, name: str, how: str) -> Path:
    """``root`` if it is a folder, else UserError with the path looked at and ``how`` to get the data."""
    if root is None:
        raise UserError(f"Data set {name} needs the folder that it lies in (--data-root). {how}")
    if not root.is_dir():
        raise UserError(f"Data set {name} was not found: {root.absolute()} is not a folder. {how}")
    return root


def require_files(root: Path, relative: tuple[str, ...], name: str, how: str) -> None:
    """UserError with the first missing path below ``root`` and ``how`` to get the data."""
    for path in relative:
        if not (root / path).exists():
            raise UserError(f"Data set {name} was not found: {(root / path).absolute()} is missing. {how}")
