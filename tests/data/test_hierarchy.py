from __future__ import annotations

import numpy as np
import pytest

from fgdemo.data.hierarchy import Hierarchy


def test_flat_hierarchy_maps_each_class_to_itself():
    hierarchy = Hierarchy.flat(["a", "b"])
    assert hierarchy.is_flat
    assert hierarchy.coarse_names == ("a", "b")
    assert hierarchy.fine_to_coarse.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("fine", "coarse", "mapping"),
    [
        (("a", "b"), ("x",), [0]),
        (("a", "b"), ("x",), [0, 1]),
        (("a", "b"), ("x", "y"), [0, 0]),
        (("a", "b"), ("x", "y"), [0, -1]),
        (("a", "a"), ("x", "y"), [0, 1]),
    ],
)
def test_contradictions_are_refused(fine, coarse, mapping):
    with pytest.raises(ValueError, match=r"fine|coarse"):
        Hierarchy(fine, coarse, np.array(mapping))
