from __future__ import annotations

import numpy as np
import pytest

from fgdemo.data.files import named_hierarchy, require_whole, shared_values, told_apart
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


def test_values_of_classes_whose_ids_begin_at_0():
    with pytest.raises(UserError, match=r"Class 2 has two names, c and d\. Fetch it\."):
        shared_values(np.array([2, 0, 1, 2]), ["c", "a", "b", "d"], "names", HOW, official_first=0)
    with pytest.raises(UserError, match=r"not 0, 1, 2 and so on without a gap\. Fetch it\."):
        shared_values(np.array([0, 2]), ["a", "b"], "names", HOW, official_first=0)


def test_only_names_that_occur_twice_are_marked():
    assert told_apart(["a", "b", "a"], ["x", "y", "z"]) == ["a (x)", "b", "a (z)"]
    assert told_apart([], []) == []


def test_a_download_in_part_is_told_with_its_first_missing_entry(tmp_path):
    require_whole(tmp_path, [], 2000, "toy", HOW)
    with pytest.raises(UserError, match=r"toy is there in part: 1,500 of 2,000 .*, the first is c/d\. Fetch it\."):
        require_whole(tmp_path, ["c/d"] * 1500, 2000, "toy", HOW)


def test_hierarchy_from_names():
    hierarchy = named_hierarchy(["b", "a", "c"], ["y", "x", "y"], "toy", HOW)
    assert hierarchy.fine_names == ("b", "a", "c")
    assert hierarchy.coarse_names == ("x", "y")
    assert hierarchy.fine_to_coarse.tolist() == [1, 0, 1]
    assert named_hierarchy(["b", "a"], None, "toy", HOW).is_flat
    with pytest.raises(UserError, match=r"Data set toy has two classes named 'a'\. Fetch it\."):
        named_hierarchy(["a", "b", "a"], None, "toy", HOW)
