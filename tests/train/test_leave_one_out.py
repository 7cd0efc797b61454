"""Leave-one-out against a loop that really takes each picture out of the memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fgdemo.models.neighbour_votes import log_votes, neighbourhood
from train import leave_one_out as module
from train.leave_one_out import leave_one_out


@pytest.fixture
def memory() -> tuple[torch.Tensor, torch.Tensor]:
    """60 rows around four directions; class 4 has a single row."""
    generator = torch.Generator().manual_seed(1)
    classes = torch.arange(60) % 4
    classes[17] = 4
    x = torch.eye(4, 6)[classes.clamp(max=3)] + 0.45 * torch.randn(60, 6, generator=generator)
    return 3 * x, classes


def by_hand(x: torch.Tensor, classes: torch.Tensor, k: int, temperature: float) -> tuple[float, float]:
    """(top-1, NLL) over the rows of classes 0 to 3."""
    unit = F.normalize(x, dim=1)
    hits, losses = [], []
    for row in range(len(x)):
        if classes[row] == 4:
            continue
        others = [other for other in range(len(x)) if other != row]
        near = neighbourhood(x[row][None], unit[others], classes[others], 5, min(k, len(others)))
        logits = log_votes(near, k, temperature)
        hits.append(int(logits.argmax()) == int(classes[row]))
        losses.append(float(F.cross_entropy(logits, classes[row][None])))
    return float(np.mean(hits)), float(np.mean(losses))


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.2), (7, 0.05), (60, 1.0)])
def test_equals_taking_each_row_out(memory: tuple[torch.Tensor, ...], k: int, temperature: float) -> None:
    x, classes = memory
    found = leave_one_out(x, classes, 5, k=k, temperature=temperature)
    top1, nll = by_hand(x, classes, k, temperature)
    assert (found.k, found.temperature, found.n) == (k, temperature, 59)
    assert found.top1 == pytest.approx(top1)
    assert found.nll == pytest.approx(nll, rel=1e-5)


def test_blocks_change_nothing(memory: tuple[torch.Tensor, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    x, classes = memory
    whole = leave_one_out(x, classes, 5)
    monkeypatch.setattr(module, "_ELEMENTS", 7 * 60)
    parts = leave_one_out(x, classes, 5)
    assert parts[:2] == whole[:2]
    assert parts[2:5] == pytest.approx(whole[2:5])
    np.testing.assert_allclose(parts.distances, whole.distances, atol=1e-6)


def test_the_choice_is_the_best_of_the_grid(memory: tuple[torch.Tensor, ...]) -> None:
    x, classes = memory
    grid = {
        (k, t): by_hand(x, classes, k, t)[1]
        for k, t in itertools.product([k for k in module.KS if k < 60], module.TEMPERATURES)
    }
    found = leave_one_out(x, classes, 5)
    assert (found.k, found.temperature) == min(grid, key=grid.__getitem__)
    assert found.nll == pytest.approx(min(grid.values()), rel=1e-5)
    for fixed in ({"k": 2}, {"temperature": 0.5}):
        chosen = leave_one_out(x, classes, 5, **fixed)
        assert fixed.items() <= chosen._asdict().items()
        allowed = [
            value for (k, t), value in grid.items() if fixed.get("k", k) == k and fixed.get("temperature", t) == t
        ]
        assert chosen.nll == pytest.approx(min(allowed), rel=1e-5)


def test_distances_are_to_the_nearest_other_row(memory: tuple[torch.Tensor, ...]) -> None:
    x, classes = memory
    similarity = F.normalize(x, dim=1) @ F.normalize(x, dim=1).T
    similarity.fill_diagonal_(-2)
    expected = 1 - similarity.max(1).values
    np.testing.assert_allclose(leave_one_out(x, classes, 5).distances, expected, atol=1e-6)


@pytest.mark.parametrize("classes", [torch.zeros(6, dtype=torch.int64), torch.arange(6)])
def test_with_nothing_to_choose_by(classes: torch.Tensor) -> None:
    found = leave_one_out(torch.randn(6, 4), classes, int(classes.max()) + 1)
    assert (found.k, found.temperature, found.n, found.top1, found.nll) == (20, 0.07, 0, 0, 0)
    assert len(found.distances) == 6
    assert leave_one_out(torch.randn(6, 4), classes, int(classes.max()) + 1, k=3).k == 3


def test_of_equally_good_votes_the_mildest() -> None:
    """Two pairs of equal rows, at right angles: one neighbour is right whatever its weight."""
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = leave_one_out(x, torch.tensor([0, 0, 1, 1]), 2, k=1)
    assert found.temperature == pytest.approx(min(module.TEMPERATURES, key=lambda t: round(by_hand_pairs(t), 9)))


def by_hand_pairs(temperature: float) -> float:
    """NLL of a row whose one voter is right at similarity 1, and whose other class is best at similarity 0."""
    return float(F.cross_entropy(torch.tensor([[1 / temperature, 0 / temperature - 16.0]]), torch.tensor([0])))
