from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.io import savemat

from fgdemo.data.mat import mat_numbers, mat_strings
from fgdemo.errors import UserError

HOW = "Fetch it."


@pytest.fixture
def path(tmp_path):
    structures = np.array([[(np.uint8(7), "a.jpg"), (np.uint8(200), "b.jpg")]], dtype=[("n", object), ("s", object)])
    savemat(
        tmp_path / "file.mat",
        {
            "row": np.array([[3, 1, 2]], dtype=np.uint8),
            "column": np.array([[3.0], [1.0]]),
            "single": np.array([[255]], dtype=np.uint8),
            "broken": np.array([[1.5, 2.0]]),
            "gap": np.array([[1.0, np.nan]]),
            "cells": np.array([["one", "two words"]], dtype=object),
            "mixed": np.array([["one", np.array([1.0, 2.0])]], dtype=object),
            "structures": structures,
        },
    )
    return tmp_path / "file.mat"


def test_numbers_are_vectors_whatever_their_shape_and_type(path):
    for entry, expected in {"row": [3, 1, 2], "column": [3, 1], "single": [255]}.items():
        numbers = mat_numbers(path, entry, HOW)
        assert numbers.dtype == np.int64
        assert numbers.tolist() == expected
    assert (mat_numbers(path, "single", HOW) + 1).tolist() == [256]


def test_fields_of_structures_and_cells(path):
    assert mat_numbers(path, "structures", HOW, field="n").tolist() == [7, 200]
    assert mat_strings(path, "structures", HOW, field="s") == ["a.jpg", "b.jpg"]
    assert mat_strings(path, "cells", HOW) == ["one", "two words"]


@pytest.mark.parametrize(
    ("read", "entry", "field", "message"),
    [
        (mat_numbers, "nothing", None, "is damaged or has no entry 'nothing'"),
        (mat_numbers, "structures", "x", "has no entry 'structures' with a field 'x'"),
        (mat_numbers, "row", "x", "has no entry 'row' with a field 'x'"),
        (mat_numbers, "broken", None, "'broken' holds numbers that are not whole"),
        (mat_numbers, "gap", None, "'gap' holds numbers that are not whole"),
        (mat_numbers, "cells", None, "'cells' holds something else than numbers"),
        (mat_numbers, "mixed", None, "'mixed' holds something else than numbers"),
        (mat_strings, "mixed", None, "'mixed' holds something else than strings"),
        (mat_strings, "structures", "n", "'n' holds something else than strings"),
    ],
)
def test_refusals_name_the_file_and_the_way(path, read, entry, field, message):
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}.*{message}.* Fetch it\."):
        read(path, entry, HOW, field=field)


@pytest.mark.parametrize("content", [b"", b"no MATLAB file" * 50])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "file.mat").write_bytes(content)
    with pytest.raises(UserError, match=r"file\.mat is damaged"):
        mat_strings(tmp_path / "file.mat", "cells", HOW)
