"""Multinomial logistic regression of many small problems at once, on any device that computes in float64.

Each problem minimises scikit-learn's objective, 0.5 |W|² + C sum_i w_i CE(W x_i + b, y_i), with b free of the penalty.
With two classes it stays multinomial, a row of W for each; scikit-learn turns to one row there, and agrees at 2 C.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK_BYTES = 1 << 28
"""256 MiB: as many problems are solved together as need no more than this; a single one takes what it needs."""

CACHE_BYTES = 1 << 24
"""The same on a processor, which slows down where the problems outgrow its cache."""

MAX_STEPS = 500
"""Conjugate gradient steps of one Newton direction; a direction cut short still descends."""

MAX_HALVINGS = 40
SUFFICIENT = 1e-4
"""Share of the first-order decrease that a step must bring (Armijo)."""


@dataclass(frozen=True)
class LogisticFit:
    """E solved problems.

    Attributes:
        weights: (E, K, D) float64.
        intercepts: (E, K) float64, summing to 0 over the classes that occur; -inf for a class without a row.
        converged: (E,) bool, whether the gradient's norm fell to `tol` times its norm at zero weights.
        iterations: (E,) int64 Newton steps.
    """

    weights: Tensor
    intercepts: Tensor
    converged: Tensor
    iterations: Tensor

    def logits(self, x: Tensor) -> Tensor:
        """(E, M, K) float64 from (E, M, D) rows, or from (M, D) rows shared by all problems."""
        return x.double() @ self.weights.mT + self.intercepts[:, None]

    def predict(self, x: Tensor) -> Tensor:
        """(E, M) int64 classes, of the same rows."""
        return self.logits(x).argmax(-1)

    def take(self, problem: int) -> LogisticFit:
        """One of the problems, still as a batch."""
        part = slice(problem, problem + 1)
        return LogisticFit(self.weights[part], self.intercepts[part], self.converged[part], self.iterations[part])


def float64_device(device: torch.device) -> torch.device:
    """The device where it surely computes in float64, else the processor."""
    return device if device.type == "cuda" else torch.device("cpu")


def fit_logistic(
    x: Tensor,
    y: Tensor,
    num_classes: int,
    *,
    C: float | Tensor = 1.0,
    weights: Tensor | None = None,
    tol: float = 1e-6,
    max_iter: int = 100,
) -> LogisticFit:
    """Solve E problems by truncated Newton steps with backtracking: directions in float32, all else in float64.

    Where a problem has fewer rows N than dimensions D it is solved, exactly, in the N dimensions that its rows span:
    the optimal W has no part outside them. Each problem stops for itself, when the Euclidean norm of its gradient is at
    most `tol` times that at W = 0, b = 0.

    Args:
        x: (E, N, D) finite features, or (N, D) shared by all problems, of which up to three copies are made in float64.
        y: (E, N) or (N,) int64 labels in [0, K).
        num_classes: K. A class that occurs in no weighted row of a problem is never predicted there.
        C: inverse strength of the penalty, one number or (E,).
        weights: (E, N) or (N,) non-negative weights of the rows, 0 for rows that do not count; None: all 1.
        max_iter: Newton steps after which a problem is given back as not converged.

    Raises:
        ValueError: shapes that do not fit together, labels outside the range, a problem without a weighted row.
    """
    strength = torch.as_tensor(C, dtype=torch.float64, device=x.device).reshape(-1, 1)
    weights = torch.ones(x.shape[-2:-1], device=x.device) if weights is None else weights
    problems, rows = np.broadcast_shapes(x.shape[:-1], y.shape, weights.shape, strength.shape)
    if rows != x.shape[-2] or (x.dim() == 3 and problems != len(x)):
        raise ValueError(f"features of shape {tuple(x.shape)} do not fit {problems} problems of {rows} rows")
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(f"labels must lie in [0, {num_classes})")
    y, cost = y.expand(problems, rows), (strength * weights).expand(problems, rows)
    if not (cost > 0).any(1).all():
        raise ValueError("every problem needs a row, and C must be above 0")
    dim, shared = x.shape[-1], x.dim() == 2
    reduced = min(rows, dim) + 1
    need = 8 * (num_classes * (6 * rows + 8 * reduced + dim) + (0 if shared else rows * (dim + 2 * reduced)))
    block = max(1, (CACHE_BYTES if x.device.type == "cpu" else BLOCK_BYTES) // need)
    parts = []
    for start in range(0, problems, block):
        part = slice(start, start + block)
        parts.append(_fit_block(x if shared else x[part], y[part], cost[part], num_classes, tol, max_iter))
    return LogisticFit(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _fit_block(
    x: Tensor, y: Tensor, cost: Tensor, num_classes: int, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The columns of a `LogisticFit`."""
    # Moving the origin to the mean changes b alone, and parts it from W in the curvature.
    mean = x.mean(-2, keepdim=True, dtype=torch.float64)
    x, basis = x - mean, None
    if x.shape[-2] < x.shape[-1]:
        basis, triangle = torch.linalg.qr(x.mT)
        x = triangle.mT
    # Along principal axes the curvature is nearly diagonal; a rotation leaves the penalty as it is.
    _, axes = torch.linalg.eigh(x.mT @ x)
    x, basis = x @ axes, axes if basis is None else basis @ axes
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    occurs = torch.zeros(len(y), num_classes, dtype=torch.float64, device=x.device).scatter_add_(1, y, cost) > 0
    floor = torch.where(occurs, 0.0, -torch.inf)
    theta, converged, iterations = _solve(_Problems(x, y, cost[:, None], floor[..., None]), tol, max_iter)
    weights = theta[..., :-1] @ basis.mT
    intercepts = theta[..., -1] - (weights @ mean.mT)[..., 0]
    # Adding one number to all intercepts changes nothing; here they sum to 0.
    intercepts = intercepts - (intercepts * occurs).sum(1, keepdim=True) / occurs.sum(1, keepdim=True)
    return weights, intercepts + floor, converged, iterations


@dataclass(frozen=True)
class _Problems:
    """Features end in a column of ones, whose coefficient is the intercept. Classes come before rows throughout.

    Attributes:
        x: (E, N, R) float64, or (N, R) shared.
        y: (E, N) int64.
        cost: (E, 1, N) float64, C times the weight of each row.
        floor: (E, K, 1) added to the logits: -inf where a class does not occur.
    """

    x: Tensor
    y: Tensor
    cost: Tensor
    floor: Tensor

    def take(self, kept: Tensor) -> _Problems:
        x = self.x if self.x.dim() == 2 else self.x[kept]
        return _Problems(x, self.y[kept], self.cost[kept], self.floor[kept])

    def single(self) -> _Problems:
        """The same in float32."""
        return _Problems(self.x.float(), self.y, self.cost.float(), self.floor)

    def penalised(self, theta: Tensor) -> Tensor:
        """(E, K, R) with the intercepts at 0."""
        return torch.cat([theta[..., :-1], torch.zeros_like(theta[..., :1])], -1)

    def chosen(self, values: Tensor) -> Tensor:
        """(E, N) of the (E, K, N) values, those of the true classes."""
        return values.gather(1, self.y[:, None])[:, 0]

    def gradient(self, theta: Tensor, probability: Tensor) -> Tensor:
        residual = probability.scatter_add(1, self.y[:, None], -torch.ones_like(probability[:, :1]))
        return self.penalised(theta) + (self.cost * residual) @ self.x

    def curvature(self, probability: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """The product of the Hessian with (E, K, R) directions, and the Hessian's diagonal (E, K, R)."""

        def product(direction: Tensor) -> Tensor:
            moved = probability * (direction @ self.x.mT)
            moved = moved - probability * moved.sum(1, keepdim=True)
            return self.penalised(direction) + (self.cost * moved) @ self.x

        spread = self.cost * probability * (1 - probability)
        diagonal = spread @ self.x.square()
        return product, self.penalised(torch.ones_like(diagonal)) + diagonal


def _solve(problems: _Problems, tol: float, max_iter: int) -> tuple[Tensor, Tensor, Tensor]:
    """theta (E, K, R), converged (E,), iterations (E,)."""
    shape = (*problems.floor.shape[:2], problems.x.shape[-1])
    device = problems.x.device
    final = torch.zeros(shape, dtype=torch.float64, device=device)
    converged = torch.zeros(shape[0], dtype=torch.bool, device=device)
    iterations = torch.zeros(shape[0], dtype=torch.int64, device=device)
    place = torch.arange(shape[0], device=device)
    theta, logits = final.clone(), problems.floor.expand(-1, -1, problems.y.shape[1])
    first, stuck = None, torch.zeros_like(converged)
    for iteration in range(max_iter + 1):
        probability = logits.softmax(1)
        gradient = problems.gradient(theta, probability)
        norm = gradient.flatten(1).norm(dim=1)
        first = norm if first is None else first
        done = norm <= tol * first
        final[place], converged[place], iterations[place] = theta, done, iteration
        kept = ~(done | stuck)
        if not kept.any() or iteration == max_iter:
            break
        # What is solved, or cannot get nearer in float64, leaves the batch.
        if not kept.all():
            problems, place, first, norm = problems.take(kept), place[kept], first[kept], norm[kept]
            theta, logits, probability, gradient = theta[kept], logits[kept], probability[kept], gradient[kept]
        # Superlinear: the closer to the solution, the more exact the direction.
        target = norm * (norm / first).sqrt().clamp(max=0.1)
        direction = _direction(problems.single(), probability.float(), gradient.float(), target.float()).double()
        change = direction @ problems.x.mT
        step = _step_length(problems, theta, direction, logits, change, gradient)
        stuck = step == 0
        theta, logits = theta + step[:, None, None] * direction, logits + step[:, None, None] * change
    return final, converged, iterations


def _direction(problems: _Problems, probability: Tensor, gradient: Tensor, target: Tensor) -> Tensor:
    """Newton directions (E, K, R) by conjugate gradients with the Hessian's diagonal as preconditioner.

    They need no more than float32: what they lack the next step brings, from a gradient in float64. A problem's
    direction is final once its residual's norm is at most `target` (E,).
    """
    product, diagonal = problems.curvature(probability)
    # The curvature along an intercept vanishes where every row is certain.
    inverse = 1 / diagonal.clamp(min=1e-10)
    solution, residual = torch.zeros_like(gradient), -gradient
    search = inverse * residual
    power = _dot(residual, search)
    busy = torch.ones_like(power, dtype=torch.bool)
    for _ in range(MAX_STEPS):
        image = product(search)
        curvature = _dot(search, image)
        # Below this share only rounding is left: moving all intercepts alike changes nothing.
        busy = busy & (_dot(residual, residual) > target.square())
        busy = busy & (curvature > 1e-6 * _dot(search.square(), diagonal))
        if not busy.any():
            break
        length = torch.where(busy, power / curvature, 0)[:, None, None]
        solution = solution + length * search
        residual = residual - length * image
        scaled = inverse * residual
        fresh = _dot(residual, scaled)
        search = scaled + torch.where(busy, fresh / power, 0)[:, None, None] * search
        power = fresh
    return solution


def _step_length(
    problems: _Problems, theta: Tensor, direction: Tensor, logits: Tensor, change: Tensor, gradient: Tensor
) -> Tensor:
    """The largest of 1, 1/2, 1/4, ... for each problem that lowers its objective enough, or 0: (E,).

    Logits are linear in the step, so a trial costs one log-sum-exp and no product with the features.
    """
    slope = _dot(gradient, direction)
    pull, square = _dot(problems.penalised(theta), direction), _dot(problems.penalised(direction), direction)
    cost, before = problems.cost[:, 0], logits.logsumexp(1)
    towards = (cost * problems.chosen(change)).sum(1)
    # The sums below are exact to about this much.
    rounding = 1e-15 * (cost * before.abs()).sum(1)
    step, pending = torch.ones_like(slope), torch.ones_like(slope, dtype=torch.bool)
    for _ in range(MAX_HALVINGS):
        after = (logits + step[:, None, None] * change).logsumexp(1)
        gain = step * (pull - towards) + step.square() / 2 * square + (cost * (after - before)).sum(1)
        pending = pending & ~(gain <= SUFFICIENT * step * slope + rounding)
        if not pending.any():
            break
        step = torch.where(pending, step / 2, step)
    return torch.where(pending, 0, step)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(E,) inner products of (E, K, R) tensors."""
    return (a * b).sum((1, 2))
