"""Batched logistic regression against scikit-learn, and what an optimum must satisfy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from train.evaluation import logistic
from train.evaluation.logistic import LogisticFit, fit_logistic


def problems(
    count: int, rows: int, dim: int, classes: int, *, norm: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Overlapping classes away from the origin, as pooled features are; every class occurs."""
    generator = torch.Generator().manual_seed(seed)
    y = (torch.arange(rows) % classes)[torch.randperm(rows, generator=generator)]
    centres = 1 + torch.randn(count, classes, dim, generator=generator)
    x = centres[:, y] + 1.5 * torch.randn(count, rows, dim, generator=generator)
    return norm * F.normalize(x, dim=-1), y


def oracle(x: Tensor, y: Tensor, C: float = 1.0, weights: Tensor | None = None) -> LogisticRegression:
    model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    return model.fit(x.double().numpy(), y.numpy(), sample_weight=None if weights is None else weights.double().numpy())


def assert_equal_fit(fit: LogisticFit, problem: int, model: LogisticRegression, tolerance: float = 1e-4) -> None:
    """The same coefficients, and intercepts up to the constant that all classes may share."""
    scale = np.abs(model.coef_).max()
    np.testing.assert_allclose(fit.weights[problem].numpy(), model.coef_, atol=tolerance * scale)
    theirs = model.intercept_ - model.intercept_.mean()
    np.testing.assert_allclose(fit.intercepts[problem].numpy(), theirs, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize(("rows", "dim"), [(20, 64), (120, 16)], ids=["fewer rows", "fewer dimensions"])
@pytest.mark.parametrize("norm", [1.0, 30.0, 100.0])
def test_agrees_with_scikit_learn(rows: int, dim: int, norm: float) -> None:
    x, y = problems(4, rows, dim, 5, norm=norm)
    fit = fit_logistic(x, y, 5, tol=1e-8)
    assert fit.converged.all()
    assert fit.weights.shape == (4, 5, dim)
    queries, _ = problems(4, 200, dim, 5, norm=norm, seed=1)
    for problem in range(4):
        model = oracle(x[problem], y)
        assert_equal_fit(fit, problem, model)
        found = fit.predict(queries)[problem].numpy()
        assert (found == model.predict(queries[problem].numpy())).mean() >= 0.995


def test_two_classes_stay_multinomial() -> None:
    x, y = problems(1, 30, 8, 2)
    fit, model = fit_logistic(x, y, 2, C=0.7, tol=1e-8), oracle(x[0], y, C=1.4)
    np.testing.assert_allclose((fit.weights[0, 1] - fit.weights[0, 0]).numpy(), model.coef_[0], rtol=1e-4, atol=1e-6)
    assert float(fit.intercepts[0, 1] - fit.intercepts[0, 0]) == pytest.approx(float(model.intercept_[0]), rel=1e-4)


def test_gradient_vanishes_at_the_solution() -> None:
    x, y = problems(3, 40, 10, 4, norm=5)
    fit = fit_logistic(x, y, 4, C=2.0, tol=1e-6)

    def gradient(weights: Tensor, intercepts: Tensor) -> Tensor:
        weights, intercepts = weights.clone().requires_grad_(), intercepts.clone().requires_grad_()
        logits = x.double() @ weights.mT + intercepts[:, None]
        loss = F.cross_entropy(logits.flatten(0, 1), y.repeat(3), reduction="sum")
        (2.0 * loss + weights.square().sum() / 2).backward()
        return torch.cat([weights.grad, intercepts.grad[..., None]], -1).flatten(1).norm(dim=1)

    start = gradient(torch.zeros_like(fit.weights), torch.zeros_like(fit.intercepts))
    # the rule counts the gradient after moving the origin to the mean; the norms differ by that much at most
    assert (gradient(fit.weights, fit.intercepts) < 1e-5 * start).all()
    torch.testing.assert_close(fit.intercepts.sum(1), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(("rows", "dim"), [(20, 64), (60, 16)])
def test_a_rotation_of_the_features_rotates_the_weights(rows: int, dim: int) -> None:
    x, y = problems(2, rows, dim, 3)
    rotation, _ = torch.linalg.qr(
        torch.randn(dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    )
    plain, turned = fit_logistic(x, y, 3, tol=1e-9), fit_logistic(x.double() @ rotation, y, 3, tol=1e-9)
    torch.testing.assert_close(turned.weights, plain.weights @ rotation, rtol=1e-4, atol=1e-6)


def test_the_order_of_classes_does_not_matter() -> None:
    x, y = problems(2, 40, 12, 4)
    order = torch.tensor([2, 0, 3, 1])
    plain, renamed = fit_logistic(x, y, 4, tol=1e-9), fit_logistic(x, order[y], 4, tol=1e-9)
    torch.testing.assert_close(renamed.weights[:, order], plain.weights, rtol=1e-4, atol=1e-6)


def test_weights_count_rows_as_often() -> None:
    x, y = problems(2, 30, 6, 3)
    weights = torch.tensor([0.0, 1.0, 2.0]).repeat(10)
    for problem, part in enumerate(x):
        assert_equal_fit(fit_logistic(x, y, 3, weights=weights, tol=1e-8), problem, oracle(part, y, weights=weights))
    repeated = torch.cat([x[:, weights > 0], x[:, weights == 2]], 1)
    labels = torch.cat([y[weights > 0], y[weights == 2]])
    torch.testing.assert_close(
        fit_logistic(x, y, 3, weights=weights, tol=1e-8).weights,
        fit_logistic(repeated, labels, 3, tol=1e-8).weights,
        rtol=1e-4,
        atol=1e-6,
    )


def test_problems_of_fewer_rows_are_padded() -> None:
    x, y = problems(2, 24, 40, 3)
    weights = torch.ones(2, 24)
    weights[1, 15:] = 0
    labels = y.repeat(2, 1)
    labels[1, 15:] = 0
    padded = fit_logistic(x, labels, 3, weights=weights, tol=1e-9)
    short = fit_logistic(x[1:, :15], y[:15], 3, tol=1e-9)
    torch.testing.assert_close(padded.weights[1:], short.weights, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(padded.intercepts[1:], short.intercepts, rtol=1e-4, atol=1e-6)


def test_a_class_without_rows_is_never_predicted() -> None:
    x, y = problems(2, 30, 8, 3)
    gap = torch.tensor([0, 2, 3])
    wide, narrow = fit_logistic(x, gap[y], 5), fit_logistic(x, y, 3)
    torch.testing.assert_close(wide.weights[:, gap], narrow.weights)
    assert (wide.intercepts[:, [1, 4]] == -torch.inf).all()
    assert torch.equal(wide.predict(x), gap[narrow.predict(x)])


def test_shared_features_under_many_strengths() -> None:
    x, y = problems(1, 60, 8, 3)
    strengths = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
    fit = fit_logistic(x[0], y, 3, C=strengths, tol=1e-8)
    for problem, C in enumerate(strengths.tolist()):
        assert_equal_fit(fit, problem, oracle(x[0], y, C=C), 1e-3)
    norms = fit.weights.flatten(1).norm(dim=1)
    assert norms[0] < norms[1] < norms[2]
    assert torch.equal(fit.predict(x[0])[1], fit.take(1).predict(x[0])[0])


def test_company_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = problems(6, 20, 30, 4)
    x[::2] *= 40
    together = fit_logistic(x, y, 4)
    assert len(set(together.iterations.tolist())) > 1
    for problem in range(6):
        alone = fit_logistic(x[problem], y, 4)
        assert alone.iterations[0] == together.iterations[problem]
        torch.testing.assert_close(alone.weights[0], together.weights[problem], rtol=1e-6, atol=1e-9)
    monkeypatch.setattr(logistic, "CACHE_BYTES", 1)
    blocks = fit_logistic(x, y, 4)
    torch.testing.assert_close(blocks.weights, together.weights, rtol=1e-6, atol=1e-9)


def test_stopping_rule_and_limit() -> None:
    x, y = problems(3, 60, 8, 3, norm=30)
    loose, tight = fit_logistic(x, y, 3, tol=1e-2), fit_logistic(x, y, 3, tol=1e-10)
    assert loose.converged.all()
    assert tight.converged.all()
    assert (loose.iterations < tight.iterations).all()
    cut = fit_logistic(x, y, 3, max_iter=1)
    assert not cut.converged.any()
    assert (cut.iterations == 1).all()
    # beyond float64: it ends, says so, and is as good as can be
    beyond = fit_logistic(x, y, 3, tol=1e-30)
    assert not beyond.converged.any()
    torch.testing.assert_close(beyond.weights, tight.weights, rtol=1e-6, atol=1e-9)


def test_refusals() -> None:
    x, y = problems(2, 10, 4, 3)
    with pytest.raises(ValueError, match="labels"):
        fit_logistic(x, y, 2)
    with pytest.raises(ValueError, match="shape"):
        fit_logistic(x, y[:9], 3)
    with pytest.raises(ValueError, match="do not fit 2 problems"):
        fit_logistic(x[:1], y.repeat(2, 1), 3)
    with pytest.raises(ValueError, match="above 0"):
        fit_logistic(x, y, 3, C=0.0)
    with pytest.raises(ValueError, match="needs a row"):
        fit_logistic(x, y, 3, weights=torch.tensor([[1.0], [0.0]]).expand(2, 10))
