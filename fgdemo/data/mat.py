"""MATLAB files, in which older data sets keep their labels. Nothing in them is unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdemo.errors import UserError


def mat_numbers(path: Path, entry: str, how: str, *, field: str | None = None) -> np.ndarray:
    """One variable of a MATLAB file as a vector of whole numbers, (n,) int64.

    Args:
        entry: the variable; of an array of structures, ``field`` names the part that is wanted.
        how: how to get the data set, for the error.

    Raises:
        UserError: no such file, variable or field, or its values are no whole numbers.
    """
    values = _vector(path, entry, field, how)
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {field or entry!r} holds something else than numbers. {how}") from error
    if not np.array_equal(numbers, np.rint(numbers)):
        raise UserError(f"{path}: {field or entry!r} holds numbers that are not whole. {how}")
    return numbers.astype(np.int64)


def mat_strings(path: Path, entry: str, how: str, *, field: str | None = None) -> list[str]:
    """Like `mat_numbers`, for a cell array or a field of strings."""
    values = _vector(path, entry, field, how).tolist()
    if not all(isinstance(value, str) for value in values):
        raise UserError(f"{path}: {field or entry!r} holds something else than strings. {how}")
    return values


def _vector(path: Path, entry: str, field: str | None, how: str) -> np.ndarray:
    from scipy.io import loadmat

    try:
        values = loadmat(path, squeeze_me=True, variable_names=[entry])[entry]
        return np.atleast_1d(values if field is None else values[field]).ravel()
    except Exception as error:  # scipy raises many kinds on damaged files
        missing = f"entry {entry!r}" if field is None else f"entry {entry!r} with a field {field!r}"
        raise UserError(f"{path} is damaged or has no {missing}. {how}") from error
