"""The loss over subclasses against a straight loop."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fgdemo.losses import within_class_loss

KS = (1, 2, 3)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 4, sum(KS), generator=generator)
    labels = torch.randint(0, 4, (7,), generator=generator)
    clusters = torch.stack([torch.randint(0, k, (7,), generator=generator) for k in KS], 1)
    return logits, labels, clusters, torch.ones(7, len(KS))


def test_equals_a_straight_loop() -> None:
    logits, labels, clusters, weights = inputs()
    weights = weights * torch.arange(1, 8)[:, None] + torch.tensor([0.0, 1.0, 5.0])
    total = counted = 0.0
    for row in range(7):
        for position, (k, start) in enumerate(((1, 0), (2, 1), (3, 3))):
            if k == 1:
                continue
            group = logits[row, labels[row], start : start + k]
            loss = F.cross_entropy(group[None], clusters[row, position][None])
            total += float(weights[row, position] * loss)
            counted += float(weights[row, position])
    assert float(within_class_loss(logits, labels, clusters, weights, KS)) == pytest.approx(total / counted)


def test_what_is_unknown_does_not_count() -> None:
    logits, labels, clusters, weights = inputs()
    clusters[2, 1] = clusters[5, 2] = -1
    masked = weights.clone()
    masked[2, 1] = masked[5, 2] = 0
    known = clusters.clamp(min=0)
    torch.testing.assert_close(
        within_class_loss(logits, labels, clusters, weights, KS),
        within_class_loss(logits, labels, known, masked, KS),
    )


def test_classes_without_the_columns_have_no_gradient_and_no_nan() -> None:
    logits, labels, clusters, weights = inputs()
    without = labels == labels[0]
    logits[:, labels[0], 1:] = -torch.inf
    logits.requires_grad_()
    clusters[without, 1:] = -1
    loss = within_class_loss(logits, labels, clusters, weights, KS)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[:, labels[0]] == 0).all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("ks", [(1,), (1, 2, 3)])
def test_nothing_known_is_zero(ks: tuple[int, ...]) -> None:
    logits, labels, clusters, weights = inputs()
    logits.requires_grad_()
    loss = within_class_loss(logits, labels, torch.full_like(clusters, -1)[:, : len(ks)], weights[:, : len(ks)], ks)
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()
