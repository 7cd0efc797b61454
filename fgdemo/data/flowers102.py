"""Oxford Flowers-102 in torchvision's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.files import photograph_catalogue, require_files, require_root
from fgdemo.data.hierarchy import Hierarchy
from fgdemo.data.mat import mat_numbers
from fgdemo.data.registry import register
from fgdemo.errors import UserError

FOLDER = "flowers-102"
NEEDED = (f"{FOLDER}/imagelabels.mat", f"{FOLDER}/setid.mat", f"{FOLDER}/jpg")
SPLIT_FIELDS = {"train": "trnid", "val": "valid", "test": "tstid"}
# Test pictures that are another's copy: 7309 is training picture 7307, 8067 validation picture 8077.
SEEN_ELSEWHERE = (7309, 8067)
HOW = (
    "Get it with torchvision.datasets.Flowers102(ROOT, download=True), 8,189 pictures in about 330 MB, "
    "and give that ROOT."
)


@register("flowers102")
def flowers102(root: Path | None, *, seed: int) -> Catalogue:
    """8,187 photographs of 102 flowers with the official splits (1,020/1,020/6,147); ``seed`` has no part in it.

    Two of the 6,149 official test pictures are left out: the other splits hold the same photographs.

    Raises:
        UserError: the data set is not under ``root``, or its label files cannot be read.
    """
    root = require_root(root, "flowers102", HOW)
    require_files(root, NEEDED, "flowers102", HOW)
    labels = mat_numbers(root / NEEDED[0], "labels", HOW) - 1
    n = len(labels)
    split = np.full(n, "", dtype="<U5")
    for name, entry in SPLIT_FIELDS.items():
        ids = mat_numbers(root / NEEDED[1], entry, HOW)
        if len(ids) and not (ids.min() >= 1 and ids.max() <= n):
            raise UserError(f"{root / NEEDED[1]} names pictures outside 1..{n}. {HOW}")
        split[ids - 1] = name
    if (split == "").any():
        raise UserError(f"{root / NEEDED[1]} leaves pictures in no split. {HOW}")
    hierarchy = Hierarchy.flat(_class_names(root, int(labels.max()) + 1))
    ids = np.arange(1, n + 1)
    kept = ~((split == "test") & np.isin(ids, SEEN_ELSEWHERE))
    return photograph_catalogue(
        "flowers102",
        root,
        [f"{FOLDER}/jpg/image_{i:05d}.jpg" for i in ids[kept]],
        labels[kept],
        split[kept],
        hierarchy,
        source=(
            "Oxford Flowers-102 (M.-E. Nilsback and A. Zisserman, ICVGIP 2008), official splits less two test "
            "pictures that are copies of others."
        ),
        how=HOW,
    )


def _class_names(root: Path, n: int) -> list[str]:
    """The names torchvision knows, else a file ``class_names.txt``, else numbers from 1 as in the label file."""
    from torchvision.datasets import Flowers102

    names = list(getattr(Flowers102, "classes", ()))
    if len(names) < n and (root / "class_names.txt").is_file():
        names = (root / "class_names.txt").read_text(encoding="utf-8").split("\n")
    names = [name.strip() for name in names][:n]
    return names if len(names) == n and all(names) else [f"flower {i}" for i in range(1, n + 1)]
