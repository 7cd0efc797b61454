"""The memory of features: rows, lengths, what several processes have written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.feature_bank import FeatureBank, effective_rank

INDEX = np.array([2, 3, 7, 11])


def bank() -> FeatureBank:
    return FeatureBank(INDEX, 3, torch.device("cpu"))


def alone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def test_what_is_written_is_read_by_dataset_index() -> None:
    memory, features = bank(), torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.5]])
    rows = memory.rows(torch.tensor([11, 3]))
    assert rows.tolist() == [3, 1]
    memory.write(rows, features, epoch=5)
    torch.testing.assert_close(memory.features(unit=False)[[3, 1]], features, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(memory.features(unit=True)[3], torch.tensor([0.6, 0.8, 0.0]), atol=1e-3, rtol=0)
    assert memory.stamp.tolist() == [-1, 5, -1, 5]
    assert memory.fresh.tolist() == [False, True, False, True]
    memory.combine(alone)
    torch.testing.assert_close(memory.features(unit=False)[[3, 1]], features, atol=2e-3, rtol=1e-3)
    assert not memory.fresh.any()


def test_processes_learn_what_the_others_wrote() -> None:
    first, second = bank(), bank()
    first.write(torch.tensor([0, 1]), torch.tensor([[2.0, 0, 0], [0, 2.0, 0]]), epoch=1)
    second.write(torch.tensor([1, 2]), torch.tensor([[0, 0, 4.0], [1.0, 0, 0]]), epoch=1)
    second.write(torch.tensor([3]), torch.tensor([[0, 1.0, 0]]), epoch=0)
    # an all-reduce by hand: both put in the same tensors in the same order
    given: list[torch.Tensor] = []
    first.combine(lambda t: given.append(t) or t)
    sums: list[torch.Tensor] = []

    def summed(tensor: torch.Tensor) -> torch.Tensor:
        sums.append(tensor + given[len(sums)])
        return sums[-1]

    second.combine(summed)
    root = 0.5**0.5
    expected = torch.tensor([[1, 0, 0], [0, root, root], [1, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(second.features(unit=True), expected.float(), atol=1e-3, rtol=0)
    assert second.norm.tolist() == [2.0, 3.0, 1.0, 1.0]
    assert second.stamp.tolist() == [1, 1, 1, 0]


def test_state_round_trip() -> None:
    memory, other = bank(), bank()
    memory.write(torch.arange(4), torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), epoch=2)
    other.load_state_dict(memory.state_dict())
    for name in ("unit", "norm", "stamp"):
        assert torch.equal(getattr(memory, name), getattr(other, name))


def test_effective_rank_of_known_spectra() -> None:
    axes = torch.eye(5)[:, :4]
    rows = torch.cat([axes, -axes])
    assert effective_rank(rows) == pytest.approx(4)
    assert effective_rank(rows * torch.tensor([1.0, 0, 0, 0])) == pytest.approx(1)
    assert effective_rank(torch.ones(6, 3)) == 0
    shares = torch.tensor([0.8, 0.2])
    expected = float(torch.special.entr(shares).sum().exp())
    assert effective_rank(rows[:, :2] * torch.tensor([4.0, 1.0])) == pytest.approx(expected, rel=1e-5)
