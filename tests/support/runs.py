"""Runs compared to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from train.methods import DataInfo
from train.state import list_states, load_state
from train.tracking import read_rows


def rows_without_clock(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(folder / "metrics.jsonl")]


def assert_equal_runs(first: Path, second: Path) -> None:
    a, b = (load_state(list_states(folder / "state")[-1]) for folder in (first, second))
    assert a.step == b.step
    assert a.info["position"] == b.info["position"]
    for stem, tensors in a.tensors.items():
        assert tensors.keys() == b.tensors[stem].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, b.tensors[stem][name]), (stem, name)
    assert rows_without_clock(first) == rows_without_clock(second)


def data_info(names: str, n: int) -> DataInfo:
    """Training data of n samples whose classes, one letter each, take turns."""
    index = np.arange(n)
    return DataInfo(tuple(names), index, index % len(names), np.array([f"{i}.png" for i in index]))
