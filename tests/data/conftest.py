from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_picture() -> Callable[..., Path]:
    """Write a noise picture whose pixels depend on its path's name only, making folders as needed."""

    def write(path: Path, size: tuple[int, int] = (12, 10)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(crc32(path.name.encode()))
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        return path

    return write
