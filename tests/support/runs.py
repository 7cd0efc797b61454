"""Runs compared to the last bit."""

from __future__ import annotations

from pathlib import Path

import torch

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
