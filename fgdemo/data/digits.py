"""scikit-learn's 1,797 handwritten digits: real data that need no download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.hierarchy import Hierarchy
from fgdemo.data.registry import register
from fgdemo.data.splits import hold_out
from fgdemo.errors import UserError

SIDE = 32
SUPERCLASSES: dict[str, tuple[tuple[str, str], tuple[int, ...]]] = {
    "parity": (("even", "odd"), (0, 1, 0, 1, 0, 1, 0, 1, 0, 1)),
    "loops": (("closed loop", "no loop"), (0, 1, 1, 1, 1, 1, 0, 1, 0, 0)),
    "magnitude": (("low", "high"), (0, 0, 0, 0, 0, 1, 1, 1, 1, 1)),
}


@register("digits")
def digits(root: Path | None, *, seed: int, superclasses: str = "parity") -> Catalogue:
    """Digits as fine classes, with a choice of superclasses.

    The split is stratified 70/15/15 (1,257/270/270) and always drawn with seed 0: this data set depends neither
    on ``root`` nor on ``seed``.

    Args:
        superclasses: "parity" (even, odd), "magnitude" (0-4, 5-9), or "loops" (0, 6, 8 and 9 have a closed
            loop; a handwritten 4 is mostly open at the top and counts as having none).
    """
    if superclasses not in SUPERCLASSES:
        raise UserError(
            f"Data set digits has no superclasses {superclasses!r}: choose one of {', '.join(SUPERCLASSES)}."
        )
    from sklearn.datasets import load_digits

    bunch = load_digits()
    fine = bunch.target.astype(np.int64)
    n = len(fine)
    coarse_names, fine_to_coarse = SUPERCLASSES[superclasses]
    split = np.full(n, "train", dtype="<U5")
    split = hold_out(split, fine, "test", 0.15, seed=0)
    split = hold_out(split, fine, "val", 0.15 * n / np.count_nonzero(split == "train"), seed=0)
    hierarchy = Hierarchy(tuple("0123456789"), coarse_names, np.array(fine_to_coarse))
    return Catalogue(
        name="digits",
        root=None,
        keys=np.array([f"digits/{i:04d}" for i in range(n)]),
        fine=fine,
        coarse=hierarchy.fine_to_coarse[fine],
        split=split,
        hierarchy=hierarchy,
        default_labels="fine",
        reader=DigitsReader((255 - np.rint(bunch.images * (255 / 16))).astype(np.uint8)),
        publishable=True,
        licence="UCI optical recognition of handwritten digits, CC BY 4.0, as distributed with scikit-learn.",
        source=(
            "1,797 handwritten digits of 8 x 8 pixels from scikit-learn's load_digits "
            f"(E. Alpaydin and C. Kaynak, UCI), enlarged to {SIDE} x {SIDE}."
        ),
    )


@dataclass(frozen=True)
class DigitsReader:
    """Dataset index -> RGB picture, dark ink on white; ``ink`` is (N, 8, 8) uint8."""

    ink: np.ndarray

    def __call__(self, index: int) -> Image.Image:
        return Image.fromarray(self.ink[index]).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")
