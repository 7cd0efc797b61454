"""What every entry of this package asks of its arguments, each refusal one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgdemo.errors import UserError

LARGEST_VALUE = 1e15
"""Length of a row beyond which sums of squares overflow in single precision."""


def as_rows(x: Any) -> Tensor:
    """(N, D) features as a float32 or float64 tensor, on their own device if that is a CPU or a CUDA one.

    Raises:
        UserError: not a non-empty numeric matrix, or a NaN, infinite or overflowing value (the first bad row
            is named).
    """
    if isinstance(x, Tensor):
        # other devices lack the float64 that centring needs
        rows = x.detach() if x.device.type in ("cpu", "cuda") else x.detach().cpu()
    else:
        array = np.asarray(x)
        if array.dtype.kind not in "fiub":
            raise UserError(f"Features must be numbers, not {array.dtype}.")
        # a copy where the memory is another's to read only, such as a mapped file
        rows = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if rows.ndim != 2 or 0 in rows.shape:
        raise UserError(f"Features must be a non-empty (rows, dimensions) matrix, not of shape {tuple(rows.shape)}.")
    if rows.dtype != torch.float64:
        rows = rows.float()
    # not(<=) is also true for NaN
    bad = ~(torch.linalg.vector_norm(rows, dim=1) <= LARGEST_VALUE)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise UserError(
            f"Row {row} of the features has a NaN, infinite or overflowing value "
            f"({int(bad.sum())} such rows of {len(rows)}): remove them or compute the features again."
        )
    return rows


def as_labels(labels: Any, n: int, *, name: str = "labels", lowest: int = 0) -> np.ndarray:
    """(N,) integer labels as int64 numpy.

    Raises:
        UserError: wrong length, not integers, or a label below `lowest`.
    """
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) != n:
        raise UserError(f"There are {n} rows but {name} has shape {tuple(array.shape)}: give one label a row.")
    if array.size and array.dtype.kind not in "iub":
        raise UserError(f"{name} must be integers, not {array.dtype}.")
    array = array.astype(np.int64)
    if n and array.min() < lowest:
        raise UserError(f"{name} must be at least {lowest}, but row {int(array.argmin())} has {array.min()}.")
    return array


def as_count(value: Any, name: str, low: int, high: int | None = None) -> int:
    """A whole number in [low, high].

    Raises:
        UserError: with the valid range.
    """
    valid = f"{low} or more" if high is None else f"from {low} to {high}"
    whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if isinstance(value, bool | np.bool_) or not whole or value < low or (high is not None and value > high):
        raise UserError(f"{name} must be a whole number {valid}, not {value!r}.")
    return int(value)


def as_number(value: Any, name: str, low: float, high: float) -> float:
    """A number in [low, high].

    Raises:
        UserError: with the valid range.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real) or not low <= value <= high:
        raise UserError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}.")
    return float(value)


def as_seed(value: Any) -> int:
    """A seed that numpy, scikit-learn and faiss all accept."""
    return as_count(value, "seed", 0, 2**32 - 1)


def as_choice(value: Any, name: str, options: Sequence[str]) -> str:
    """One of `options`.

    Raises:
        UserError: with the list of good ones.
    """
    if value not in options:
        raise UserError(f"Unknown {name} {value!r}: choose one of {', '.join(options)}.")
    return value
