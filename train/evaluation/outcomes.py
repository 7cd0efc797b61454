"""Outcomes of single pictures or episodes, small enough for a line of JSON.

Two runs can be compared pair by pair only where it is known what each made of each picture. A thousand bits are 172
characters of base64.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np


def pack_bits(values: np.ndarray) -> dict[str, Any]:
    """(N,) booleans."""
    return {"kind": "bits", "n": len(values), "data": _encode(np.packbits(np.asarray(values, bool)))}


def pack_shares(values: np.ndarray, total: int) -> dict[str, Any]:
    """(N,) fractions of `total` each, such as the accuracy of an episode over its queries; `total` below 65,536."""
    counts = np.rint(np.asarray(values, np.float64) * total).astype("<u2")
    return {"kind": "shares", "n": len(counts), "total": total, "data": _encode(counts)}


def pack_replicates(values: np.ndarray) -> dict[str, Any]:
    """(R,) values of a figure that is no mean over pictures, under the keyed resamples of `bootstrap_rows`."""
    return {"kind": "replicates", "n": len(values), "data": _encode(np.asarray(values, "<f4"))}


def unpack(outcome: dict[str, Any]) -> np.ndarray:
    """(N,) float64 of any of them.

    Raises:
        ValueError: an unknown kind.
    """
    raw = base64.b64decode(outcome["data"])
    if outcome["kind"] == "bits":
        return np.unpackbits(np.frombuffer(raw, np.uint8), count=outcome["n"]).astype(np.float64)
    if outcome["kind"] == "shares":
        return np.frombuffer(raw, "<u2") / outcome["total"]
    if outcome["kind"] == "replicates":
        return np.frombuffer(raw, "<f4").astype(np.float64)
    raise ValueError(f"unknown kind of outcome {outcome['kind']!r}")


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")
