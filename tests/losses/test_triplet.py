"""Batch-hard triplet loss: hand-computed cases, a plain loop, invariants and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fgdemo.errors import UserError
from fgdemo.losses import TripletLoss, batch_hard_triplet

# Four points on a line, two classes: 0 and 1 of class 0; 3 and 7 of class 1.
LINE = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
LINE_LABELS = torch.tensor([0, 0, 1, 1])


def noise(n: int, d: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loop(embeddings: Tensor, labels: Tensor, margin: float | None, normalise: bool) -> dict[str, float]:
    """The definition, one pair of plain numbers at a time, in double precision."""
    points = embeddings.double().tolist()
    if normalise:
        points = [[x / math.hypot(*point) for x in point] for point in points]
    groups = labels.tolist()
    hinges, active, positives, negatives = [], 0, [], []
    for i, anchor in enumerate(points):
        apart = [(j, math.dist(anchor, other)) for j, other in enumerate(points) if j != i]
        same = [d for j, d in apart if groups[j] == groups[i]]
        different = [d for j, d in apart if groups[j] != groups[i]]
        if not same or not different:
            continue
        positives.append(max(same))
        negatives.append(min(different))
        violation = positives[-1] - negatives[-1] + (margin or 0)
        hinges.append(math.log1p(math.exp(violation)) if margin is None else max(0.0, violation))
        active += violation > 0
    count = max(len(hinges), 1)
    return {
        "loss": sum(hinges) / count,
        "active": active / count,
        "positive": sum(positives) / count,
        "negative": sum(negatives) / count,
        "valid": len(hinges) / len(points),
    }


def as_floats(result: TripletLoss) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in result._asdict().items()}


def test_hand_computed_hinge():
    # Positives 1, 1, 4, 4 and negatives 3, 2, 2, 6; with margin 1.5 the hinges are 0, 0.5, 3.5, 0.
    found = batch_hard_triplet(LINE, LINE_LABELS, margin=1.5, normalise=False)
    assert as_floats(found) == {"loss": 1.0, "active": 0.5, "positive": 2.5, "negative": 3.25, "valid": 1.0}


def test_mining_stays_exact_far_from_the_origin():
    # Through products of matrices squared distances near 10,000 are wrong by about 10.
    near, far = (batch_hard_triplet(LINE + at, LINE_LABELS, margin=1.5, normalise=False) for at in (0, 10_000))
    assert as_floats(near) == as_floats(far)


def test_hand_computed_soft_margin():
    # The same violations without a margin: -2, -1, 2, -2.
    found = batch_hard_triplet(LINE, LINE_LABELS, margin=None, normalise=False)
    expected = sum(math.log(1 + math.exp(v)) for v in (-2, -1, 2, -2)) / 4
    assert float(found.loss) == pytest.approx(expected, rel=1e-6)
    assert float(found.active) == 0.25


def test_hand_computed_on_the_unit_circle():
    # At 0, 90, 180 and 270 degrees, of lengths that do not matter: sides sqrt 2, diagonals 2.
    points = torch.tensor([[5.0, 0.0], [0.0, 0.1], [-2.0, 0.0], [0.0, -9.0]])
    found = batch_hard_triplet(points, torch.tensor([0, 1, 0, 1]), margin=0.2)
    assert float(found.positive) == pytest.approx(2)
    assert float(found.negative) == pytest.approx(math.sqrt(2))
    assert float(found.loss) == pytest.approx(2.2 - math.sqrt(2), rel=1e-6)


def test_anchors_without_positive_or_negative_do_not_count():
    # 8 is alone in its class: no anchor, yet the nearest negative of 7.
    points, labels = torch.cat([LINE, torch.tensor([[8.0]])]), torch.tensor([0, 0, 1, 1, 2])
    found = batch_hard_triplet(points, labels, margin=1.5, normalise=False)
    expected = {"loss": 8.5 / 4, "active": 0.75, "positive": 2.5, "negative": 2.0, "valid": 0.8}
    assert as_floats(found) == pytest.approx(expected)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0, None])
@pytest.mark.parametrize("classes", [2, 5, 20])
def test_equals_a_plain_loop(margin: float | None, normalise: bool, classes: int):
    embeddings = noise(24, 6, seed=classes)
    labels = torch.randint(0, classes, (24,), generator=torch.Generator().manual_seed(1))
    found = batch_hard_triplet(embeddings, labels, margin=margin, normalise=normalise)
    assert as_floats(found) == pytest.approx(loop(embeddings, labels, margin, normalise), rel=1e-5)


def test_every_option_changes_the_loss():
    embeddings, labels = noise(16, 4), torch.arange(16) // 4
    options = [{"margin": m, "normalise": n} for m in (0.2, 1.0, None) for n in (True, False)]
    assert len({float(batch_hard_triplet(embeddings, labels, **o).loss) for o in options}) == 6
    default, stated = (batch_hard_triplet(embeddings, labels, **o) for o in ({}, options[0]))
    assert as_floats(default) == as_floats(stated)


def test_order_of_the_batch_and_names_of_the_labels_do_not_matter():
    embeddings, labels = noise(18, 5), torch.arange(18) % 4
    order = torch.randperm(18, generator=torch.Generator().manual_seed(2))
    expected = as_floats(batch_hard_triplet(embeddings, labels))
    assert as_floats(batch_hard_triplet(embeddings[order], labels[order])) == pytest.approx(expected, rel=1e-5)
    assert as_floats(batch_hard_triplet(embeddings, 10**12 - labels)) == expected


def test_rotation_and_where_raw_translation_do_not_matter():
    embeddings, labels = noise(18, 5), torch.arange(18) % 4
    rotation = torch.linalg.qr(noise(5, 5, seed=7)).Q
    for normalise in (True, False):
        expected = as_floats(batch_hard_triplet(embeddings, labels, normalise=normalise))
        turned = batch_hard_triplet(embeddings @ rotation, labels, normalise=normalise)
        assert as_floats(turned) == pytest.approx(expected, rel=1e-5)
    assert as_floats(batch_hard_triplet(embeddings + 3, labels, normalise=False)) == pytest.approx(expected, rel=1e-4)


def test_length_matters_to_raw_embeddings_alone():
    embeddings, labels = noise(12, 5), torch.arange(12) // 3
    lengths = torch.linspace(0.5, 4, 12)[:, None]
    pairs = [
        [batch_hard_triplet(e, labels, normalise=n).loss for e in (embeddings, lengths * embeddings)] for n in (1, 0)
    ]
    assert torch.allclose(*pairs[0])
    assert not torch.allclose(*pairs[1])


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("margin", [0.5, None])
def test_gradient_in_double_precision(margin: float | None, normalise: bool):
    embeddings, labels = noise(8, 3, dtype=torch.float64).requires_grad_(), torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])

    def loss(x: Tensor) -> Tensor:
        return batch_hard_triplet(x, labels, margin=margin, normalise=normalise).loss

    assert torch.autograd.gradcheck(loss, embeddings)


def test_gradient_in_single_precision_equals_finite_differences_of_the_loop():
    embeddings, labels = noise(8, 3).requires_grad_(), torch.arange(8) // 2
    batch_hard_triplet(embeddings, labels).loss.backward()
    step = 1e-6
    for i, d in ((0, 0), (3, 2), (7, 1)):
        ends = []
        for sign in (1, -1):
            moved = embeddings.detach().double()
            moved[i, d] += sign * step
            ends.append(loop(moved, labels, 0.2, True)["loss"])
        assert float(embeddings.grad[i, d]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-6)


def test_a_step_down_the_gradient_lowers_the_loss():
    embeddings, labels = noise(16, 8).requires_grad_(), torch.arange(16) // 4
    before = batch_hard_triplet(embeddings, labels)
    before.loss.backward()
    after = batch_hard_triplet(embeddings.detach() - 0.1 * embeddings.grad, labels)
    assert after.loss < before.loss
    assert not any(value.requires_grad for value in before[1:])


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("margin", [0.2, None])
def test_equal_embeddings_have_distance_and_gradient_zero(margin: float | None, normalise: bool):
    # Of length about 55, where squared distances through a matrix product are wrong by 1e-3.
    embeddings = (2 * noise(1, 768)).repeat(6, 1).requires_grad_()
    found = batch_hard_triplet(embeddings, torch.tensor([0, 0, 0, 1, 1, 1]), margin=margin, normalise=normalise)
    found.loss.backward()
    assert float(found.positive) == float(found.negative) == 0
    assert float(found.loss.detach()) == pytest.approx(math.log(2) if margin is None else 0.2)
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


def test_a_pair_of_equal_pictures_leaves_the_other_gradients_finite():
    embeddings = noise(8, 4)
    embeddings[1] = embeddings[0]
    embeddings.requires_grad_()
    batch_hard_triplet(embeddings, torch.arange(8) // 2, margin=2.0).loss.backward()
    assert embeddings.grad.isfinite().all()
    assert (embeddings.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("labels", [[3, 3, 3, 3], [0, 1, 2, 3], [5]], ids=["one class", "all distinct", "one sample"])
@pytest.mark.parametrize("margin", [0.2, None])
def test_without_valid_anchors_a_zero_that_stays_in_the_graph(labels: list[int], margin: float | None):
    layer = torch.nn.Linear(5, 4)
    found = batch_hard_triplet(layer(noise(len(labels), 5)), torch.tensor(labels), margin=margin)
    assert as_floats(found) == dict.fromkeys(found._fields, 0.0)
    found.loss.backward()
    assert torch.equal(layer.weight.grad, torch.zeros(4, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_compute_in_float32(dtype: torch.dtype):
    half, labels = noise(16, 32).to(dtype).requires_grad_(), torch.arange(16) // 4
    expected = batch_hard_triplet(half.detach().float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        found = batch_hard_triplet(half, labels)
    assert {value.dtype for value in found} == {torch.float32}
    assert as_floats(found) == as_floats(expected)
    found.loss.backward()
    assert half.grad.dtype == dtype
    assert half.grad.abs().sum() > 0


@pytest.mark.parametrize("margin", [0.2, None])
def test_compiles_as_one_graph(margin: float | None):
    torch.compiler.reset()
    traced = torch.compile(batch_hard_triplet, fullgraph=True, backend="aot_eager")
    # Two sets of labels of one shape, the second without valid anchors: nothing depends on the data.
    for labels in (torch.arange(12) // 3, torch.arange(12)):
        plain, compiled = noise(12, 6).requires_grad_(), noise(12, 6).requires_grad_()
        expected, found = batch_hard_triplet(plain, labels, margin=margin), traced(compiled, labels, margin=margin)
        assert as_floats(found) == pytest.approx(as_floats(expected))
        expected.loss.backward()
        found.loss.backward()
        torch.testing.assert_close(compiled.grad, plain.grad)


@pytest.mark.parametrize("margin", [0.2, None])
def test_never_reads_a_value_back(margin: float | None):
    # Tensors of the meta device have no values: whatever would wait for a device raises here.
    embeddings = torch.randn(12, 6, device="meta", requires_grad=True)
    found = batch_hard_triplet(embeddings, torch.zeros(12, dtype=torch.int64, device="meta"), margin=margin)
    assert {value.shape for value in found} == {torch.Size([])}
    found.loss.backward()
    assert embeddings.grad.shape == embeddings.shape


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_impossible_margin(margin: float):
    with pytest.raises(UserError, match="triplet margin"):
        batch_hard_triplet(LINE, LINE_LABELS, margin=margin)


@pytest.mark.parametrize("labels", [torch.zeros(4, 2).long(), torch.zeros(3).long(), torch.rand(4)])
def test_labels_are_one_integer_a_sample(labels: Tensor):
    with pytest.raises(ValueError, match="labels"):
        batch_hard_triplet(LINE, labels)
