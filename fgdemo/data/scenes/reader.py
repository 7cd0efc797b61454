"""Pictures, masks and part boxes by dataset index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fgdemo.data.scenes.cache import CHUNK, ArrayCache, fingerprint
from fgdemo.data.scenes.painter import SIZE
from fgdemo.data.scenes.plan import Plan
from fgdemo.data.scenes.render import Scene, pose, render


class SceneReader:
    """Dataset index -> RGB picture; also gives the object masks.

    Pictures are drawn in chunks of CHUNK when one of them is first read, and kept below `directory`. Where
    that cannot be written every picture is drawn when it is read. It pickles: loader workers open the files
    themselves.
    """

    def __init__(self, plan: Plan, seed: int, directory: Path) -> None:
        self.plan = plan
        self.seed = seed
        self.directory = directory / f"scenes-{fingerprint()}-seed{seed}"
        self._cache = ArrayCache(self.directory)
        self._chunks: dict[int, np.ndarray] = {}

    def __call__(self, index: int) -> Image.Image:
        index = self._check(index)
        chunk, row = divmod(index, CHUNK)
        if chunk not in self._chunks and not self._open(chunk):
            return Image.fromarray(self.scene(index).image)
        return Image.fromarray(np.array(self._chunks[chunk][row]))

    def scene(self, index: int) -> Scene:
        """Draw one picture, with its mask and part box, past the cache."""
        index = self._check(index)
        return render(self.seed, index, int(self.plan.class_id[index]), int(self.plan.subclass[index]))

    def mask(self, index: int) -> np.ndarray:
        """(128, 128) bool: the pixels that show the creature, leaves in front of it left out."""
        return self.scene(index).mask

    def part_boxes(self) -> np.ndarray:
        """(N, 4) float32 x0, y0, x1, y1 in pixels of the telling part, whether or not a leaf hides some."""

        def make() -> np.ndarray:
            keys = zip(self.plan.class_id.tolist(), self.plan.subclass.tolist(), strict=True)
            return np.stack([pose(self.seed, i, c, s).part_box() for i, (c, s) in enumerate(keys)])

        return np.array(self._cache.get("part_boxes", (len(self.plan), 4), np.float32, make))

    def _open(self, chunk: int) -> bool:
        """Map a chunk, drawing it where it is missing; False where it can be neither found nor kept."""
        rows = range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(self.plan)))
        name, shape = f"pictures-{chunk:03d}", (len(rows), SIZE, SIZE, 3)
        if not self._cache.writable and not self._cache.has(name, shape, np.uint8):
            return False
        pictures = self._cache.get(name, shape, np.uint8, lambda: np.stack([self.scene(i).image for i in rows]))
        if self._cache.writable:
            self._chunks[chunk] = pictures
        return self._cache.writable

    def _check(self, index: int) -> int:
        if not 0 <= index < len(self.plan):
            raise IndexError(f"scenes has {len(self.plan)} pictures, there is no number {index}")
        return int(index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chunks": {}}
