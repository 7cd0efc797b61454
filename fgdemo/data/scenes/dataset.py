"""The catalogue of the drawn creatures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.hierarchy import Hierarchy
from fgdemo.data.registry import register
from fgdemo.data.scenes.cache import user_cache_directory
from fgdemo.data.scenes.plan import plan
from fgdemo.data.scenes.reader import SceneReader
from fgdemo.data.scenes.species import SPECIES

# The seed that all pictures are drawn with; another one gives other pictures of the same creatures.
DRAWING = 0


@register("scenes")
def scenes(root: Path | None, *, seed: int) -> Catalogue:
    """3,840 pictures of 128 x 128 pixels: 12 classes with 1 to 5 hidden subclasses each.

    Coarse labels are the classes, which training sees; fine labels are the hidden subclasses. truth has
    "subclass" (N,) int64, counted inside the class, and "part_box" (N, 4) float32 x0, y0, x1, y1 in pixels,
    the place of the part that tells the subclass. `catalogue.reader.mask(index)` is the object's mask.

    Args:
        root: folder to keep the drawn pictures in (190 MB once all are read); None means the user's cache
            folder.
        seed: ignored: runs of different seeds train on, and are tested on, the same pictures.
    """
    layout = plan(DRAWING)
    sizes = np.array([len(s.subclasses) for s in SPECIES])
    first = np.cumsum(sizes) - sizes
    reader = SceneReader(layout, DRAWING, root or user_cache_directory())
    within = np.concatenate([np.arange(np.count_nonzero(layout.split == s)) for s in ("train", "val", "test")])
    return Catalogue(
        name="scenes",
        root=root,
        keys=np.array([f"scenes/{s}/{i:05d}" for s, i in zip(layout.split, within, strict=True)]),
        fine=first[layout.class_id] + layout.subclass,
        coarse=layout.class_id,
        split=layout.split,
        hierarchy=Hierarchy(
            tuple(f"{s.name} / {name}" for s in SPECIES for name, _ in s.subclasses),
            tuple(s.name for s in SPECIES),
            np.repeat(np.arange(len(SPECIES)), sizes),
        ),
        default_labels="coarse",
        reader=reader,
        truth={"subclass": layout.subclass, "part_box": reader.part_boxes()},
        publishable=True,
        licence="Drawn by fgdemo's own code, Apache-2.0.",
        source=(
            "3,840 pictures of imaginary creatures, 128 x 128 pixels, 12 classes with 1 to 5 hidden subclasses, "
            "drawn by fgdemo."
        ),
    )
