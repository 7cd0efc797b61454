from __future__ import annotations

import numpy as np
import pytest

from fgdemo.data.files import named_hierarchy, shared_values
from fgdemo.errors import UserError

HOW = "Fetch it."


def test_values_that_classes_share():
    labels = np.array([2, 0, 1, 0, 2])
    assert shared_values(labels, ["c", "a", "b", "a", "c"], "names", HOW) == ["a", "b", "c"]
    assert shared_values(labels, ["x", "y", "y", "y", "x"], "names", HOW) == ["y", "y", "x"]
    with pytest.raises(UserError, match=r"Class 3 has two names, c and d\. Fetch it\."):
        shared_values(labels, ["c", "a", "b", "a", "d"], "names", HOW)
    for wrong in ([0, 2, 2], [1, 2, 3], [-1, 0, 1]):
        with pytest.raises(UserError, match=r"not 1, 2, 3 and so on without a gap\. Fetch it\."):
            shared_values(np.array(wrong), ["a", "b", "c"], "names", HOW)


def test_hierarchy_from_names():
    hierarchy = named_hierarchy(["b", "a", "c"], ["y", "x", "y"], "toy", HOW)
    assert hierarchy.fine_names == ("b", "a", "c")
    assert hierarchy.coarse_names == ("x", "y")
    assert hierarchy.fine_to_coarse.tolist() == [1, 0, 1]
    assert named_hierarchy(["b", "a"], None, "toy", HOW).is_flat
    with pytest.raises(UserError, match=r"Data set toy has two classes named 'a'\. Fetch it\."):
        named_hierarchy(["a", "b", "a"], None, "toy", HOW)
