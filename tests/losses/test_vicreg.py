"""VICReg by hand and against its definition, pairs by a straight loop, gradients of both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fgdemo.losses import vicreg
from fgdemo.losses.vicreg import EPS, partners
from tests.support.ranks import run_ranks


def features(n: int = 6, dim: int = 4) -> torch.Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("keys", [[0, 1, 0, 1, 0, 2], [5, 5, 5, 5, 5, 5], [3, 1, 4, 0, 5, 9], [-1, 7, -1, 7, 7, 7]])
def test_partners_are_the_next_of_the_same_key(keys: list[int]) -> None:
    found = partners(torch.tensor(keys)).tolist()
    for row, key in enumerate(keys):
        same = [other for other, theirs in enumerate(keys) if theirs == key]
        assert found[row] == same[(same.index(row) + 1) % len(same)]


def test_terms_by_their_definition() -> None:
    x, keys = features(), torch.tensor([0, 0, 1, 1, 1, 2])
    found = vicreg(x, keys)
    pairs = [(0, 1), (1, 0), (2, 3), (3, 4), (4, 2)]
    expected = sum(float(((x[a] - x[b]) ** 2).mean()) for a, b in pairs) / len(pairs)
    assert float(found.invariance) == pytest.approx(expected)
    assert float(found.paired) == pytest.approx(5 / 6)
    assert float(found.variance) == pytest.approx(float((1 - (x.var(0) + EPS).sqrt()).clamp(min=0).mean()))
    covariance = torch.cov(x.T)
    off_diagonal = covariance - covariance.diag().diag()
    assert float(found.covariance) == pytest.approx(float((off_diagonal**2).sum() / 4))


def test_nothing_is_left_to_do_for_decorrelated_features_of_unit_variance() -> None:
    x = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]) * 2
    found = vicreg(x, torch.arange(4))
    assert found.variance == 0
    assert found.covariance == 0
    assert found.invariance == 0
    assert found.paired == 0


def test_collapse_costs_the_whole_hinge() -> None:
    found = vicreg(torch.ones(5, 3), torch.zeros(5, dtype=torch.int64))
    assert float(found.variance) == pytest.approx(1 - EPS**0.5)
    assert found.invariance == 0


def test_unit_features_are_saturated_and_the_sphere_is_not() -> None:
    """Jensen: the mean hinge of unit rows is at least 1 - sqrt(B / ((B - 1) D) + EPS) (specification, 5.4)."""
    unit = torch.nn.functional.normalize(torch.randn(96, 1280, generator=torch.Generator().manual_seed(0)), dim=1)
    assert float(vicreg(unit, torch.arange(96)).variance) >= 1 - (96 / (95 * 1280) + EPS) ** 0.5
    assert float(vicreg(unit * 1280**0.5, torch.arange(96)).variance) < 0.1


def test_the_gradient_reaches_both_pictures_or_one() -> None:
    keys = torch.tensor([0, 0])
    for both, factor in ((True, 1.0), (False, 0.5)):
        x = torch.tensor([[1.0, 0.0], [0.0, 3.0]], requires_grad=True)
        vicreg(x, keys, both=both).invariance.backward()
        # the mean over two ordered pairs and two dimensions of (a - b)²; the derivative of each is a - b
        expected = factor * torch.tensor([[1.0, -3.0], [-1.0, 3.0]])
        torch.testing.assert_close(x.grad, expected)


def test_one_side_halves_the_other_terms_gradient_and_keeps_their_value() -> None:
    grads = []
    for both in (True, False):
        x = (features() * 0.3).requires_grad_()
        found = vicreg(x, torch.arange(6), both=both)
        (found.variance + found.covariance).backward()
        grads.append((x.grad, found.variance.detach(), found.covariance.detach()))
    torch.testing.assert_close(grads[0][0], 2 * grads[1][0])
    torch.testing.assert_close(grads[0][1:], grads[1][1:])


def test_statistics_are_in_float32_under_autocast() -> None:
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) + 100
    plain = vicreg(x.bfloat16(), torch.arange(64))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = vicreg(x.bfloat16(), torch.arange(64))
    for a, b in zip(plain, mixed, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def test_processes_together_have_the_gradient_of_one(tmp_path: Path) -> None:
    """Averaged over two processes, as data-parallel training does; without pairs, which stay inside a process."""
    x = features(8, 3) * 0.4
    one = x.clone().requires_grad_()
    found = vicreg(one, torch.arange(8))
    (found.variance + found.covariance).backward()
    parts = run_ranks(2, tmp_path, _variance_and_covariance, x)
    for rank, (variance, covariance, gradient) in enumerate(parts):
        assert variance == pytest.approx(found.variance.item())
        assert covariance == pytest.approx(found.covariance.item())
        # the mean over processes of the parameters' gradients: each process's rows count half
        torch.testing.assert_close(gradient / 2, one.grad[4 * rank : 4 * rank + 4])


def _variance_and_covariance(rank: int, count: int, x: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    mine = x[4 * rank : 4 * rank + 4].clone().requires_grad_()
    found = vicreg(mine, torch.arange(4))
    (found.variance + found.covariance).backward()
    return found.variance.item(), found.covariance.item(), mine.grad
