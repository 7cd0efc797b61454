"""Deletion and insertion of explanations: a network that is known through, real ones, and every option."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import ttest_rel
from support.subjects import digits_subject
from torch import nn

from fgdemo.data import eval_transform
from fgdemo.errors import UserError
from fgdemo.explain.activation_maps import ActivationMap
from fgdemo.explain.curves import area_under
from fgdemo.explain.explanation import Explanation, explain
from fgdemo.models import Network, NetworkOutput, build_network
from train.evaluation import Subject, faithfulness
from train.evaluation.faithfulness import FaithfulnessOptions, fill_of, lines, measure, orders_of, stratified_sample


class OneCell(nn.Module):
    """Two classes: the logit of the first grows with the brightness of cell 5 of 4 x 4, that of the second is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SimpleNamespace(has_class_rows=False, input_size=(32, 32))

    def forward(self, images: torch.Tensor) -> NetworkOutput:
        cell = images[:, :, 8:16, 8:16].mean((1, 2, 3))
        return NetworkOutput(torch.stack([3 * cell, torch.zeros_like(cell)], dim=1), images.mean((2, 3)))


def explain_one_cell(network, image, box, *, target):
    contributions = np.zeros((4, 4), np.float32)
    contributions[1, 1] = 1
    return Explanation("activation", (4, 4), box, activation=ActivationMap(contributions, target, 0.0, True))


@pytest.fixture
def one_cell(monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A subject whose network reads one cell, which the explanation names."""
    monkeypatch.setattr(faithfulness, "explain", explain_one_cell)
    return digits_subject(OneCell())


@pytest.fixture(scope="module")
def vit_network() -> Network:
    """A transformer of random weights, large enough for its answers to differ."""
    torch.manual_seed(0)
    network = build_network("timm", architecture="test_vit", num_classes=10, img_size=64).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


@pytest.fixture
def vit(vit_network: Network) -> Subject:
    return digits_subject(vit_network, size=64)


def small(**changes: object) -> FaithfulnessOptions:
    return FaithfulnessOptions(True, **({"faithful_pictures": 6, "faithful_steps": 3, "faithful_draws": 2} | changes))


def test_a_network_that_reads_one_cell(one_cell: Subject) -> None:
    """Deleting the cell alone brings the filled picture's probability, inserting it alone the intact one's."""
    result = measure(one_cell, FaithfulnessOptions(True, 40, 16, "mean"))
    output = one_cell.outputs("test")
    chosen = stratified_sample(output.labels.numpy(), 40, 0)
    images = torch.stack([one_cell.images("test")[row].image for row in chosen])
    predicted = output.logits[chosen].argmax(1)
    intact, filled = (
        (3 * values).sigmoid().where(predicted == 0, (-3 * values).sigmoid()).double().mean().item()
        for values in (images[:, :, 8:16, 8:16].mean((1, 2, 3)), images.mean((1, 2, 3)))
    )
    assert (result["n"], result["grid"], result["map"]) == (40, [4, 4], "activation")
    assert (result["intact"], result["filled"]) == pytest.approx((intact, filled), abs=1e-6)
    ours = result["orders"]["explanation"]
    assert ours["deletion_curve"] == pytest.approx([intact] + [filled] * 16, abs=1e-6)
    assert ours["insertion_curve"] == pytest.approx([filled] + [intact] * 16, abs=1e-6)
    assert ours["deletion"] == pytest.approx((intact + filled) / 32 + filled * 15 / 16, abs=1e-6)
    assert ours["insertion"] == pytest.approx((intact + filled) / 32 + intact * 15 / 16, abs=1e-6)
    assert intact > filled
    for control in ("random", "grid"):
        assert result["differences"][control]["deletion"]["high"] < 0
        assert result["differences"][control]["insertion"]["low"] > 0


def test_intervals_are_those_of_the_paired_t_test(one_cell: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(faithfulness, "area_under", lambda *given: seen.append(area_under(*given)) or seen[-1])
    result = measure(one_cell, small())
    ours, grid = seen[0], seen[2]
    interval = ttest_rel(ours, grid).confidence_interval(0.95)
    gap = result["differences"]["grid"]["deletion"]
    assert (gap["low"], gap["high"], gap["n"]) == pytest.approx((interval.low, interval.high, 6))
    assert gap["mean"] == pytest.approx(
        result["orders"]["explanation"]["deletion"] - result["orders"]["grid"]["deletion"]
    )


def test_orders_follow_what_the_app_shows(vit: Subject) -> None:
    images = torch.stack([vit.images("test")[row].image for row in range(3)])
    orders, grid = orders_of(vit.network, images, [4, 5, 6], [0, 1, 2], small())
    assert grid == (4, 4)
    assert {name: order.shape for name, order in orders.items()} == {
        "explanation": (3, 1, 16),
        "attention": (3, 1, 16),
        "grid": (3, 1, 16),
        "random": (3, 2, 16),
    }
    for order in orders.values():
        np.testing.assert_array_equal(np.sort(order, axis=2), np.broadcast_to(np.arange(16), order.shape))
    for i, image in enumerate(images):
        shown = explain(vit.network, image, (0, 0, 64, 64))
        for name, what in (("explanation", "scores"), ("attention", "attention")):
            assert (np.diff(shown.select(what=what).map.ravel()[orders[name][i, 0]]) <= 0).all()
    again, _ = orders_of(vit.network, images, [4, 5, 6], [0, 1, 2], small())
    other, _ = orders_of(vit.network, images, [7, 8, 9], [0, 1, 2], small())
    for name in orders:
        np.testing.assert_array_equal(orders[name], again[name])
    assert not np.array_equal(orders["random"], other["random"])
    assert not np.array_equal(orders["random"][0, 0], orders["random"][0, 1])


def test_networks_without_class_rows_are_explained_by_activation() -> None:
    torch.manual_seed(0)
    network = build_network("timm", architecture="test_resnet", num_classes=10, img_size=64).eval()
    subject = digits_subject(network, size=64)
    images = torch.stack([subject.images("test")[row].image for row in range(2)])
    orders, grid = orders_of(network, images, [0, 1], [3, 7], small())
    assert list(orders) == ["explanation", "grid", "random"]
    for i, target in enumerate((3, 7)):
        shown = explain(network, images[i], (0, 0, 64, 64), target=target)
        assert grid == shown.grid
        assert (np.diff(shown.select().map.ravel()[orders["explanation"][i, 0]]) <= 0).all()
        assert (np.diff(shown.activation.contributions.ravel()[orders["explanation"][i, 0]]) <= 0).all()


def test_figures_of_a_transformer(vit: Subject) -> None:
    result = json.loads(json.dumps(measure(vit, small())))
    assert list(result["orders"]) == ["explanation", "attention", "grid", "random"]
    assert list(result["differences"]) == ["attention", "grid", "random"]
    assert result["shares"] == [0, 5 / 16, 11 / 16, 1]
    for order in result["orders"].values():
        assert order["deletion_curve"][0] == order["insertion_curve"][-1] == result["intact"]
        assert order["deletion_curve"][-1] == order["insertion_curve"][0] == result["filled"]
        assert order["deletion"] == pytest.approx(np.trapezoid(order["deletion_curve"], result["shares"]))
        assert order["insertion"] == pytest.approx(np.trapezoid(order["insertion_curve"], result["shares"]))
    assert measure(vit, small()) == result
    text = "\n".join(lines(result))
    assert "lower deletion and higher insertion are more faithful" in text
    assert f"random       {result['orders']['random']['deletion']:>8.3f}" in text
    assert f"{result['differences']['grid']['insertion']['low']:+.3f}" in text


def test_batches_change_nothing(vit: Subject) -> None:
    whole = measure(vit, small())
    parts = digits_subject(vit.network, size=64, batch_size=4)
    for name, order in measure(parts, small())["orders"].items():
        assert order["deletion_curve"] == pytest.approx(whole["orders"][name]["deletion_curve"], abs=1e-5)
        assert order["insertion_curve"] == pytest.approx(whole["orders"][name]["insertion_curve"], abs=1e-5)


def test_every_option_changes_the_figures(vit: Subject) -> None:
    plain = measure(vit, small())
    assert (plain["n"], plain["draws"], plain["fill"], plain["blur"]) == (6, 2, "blur", 8)
    more = measure(vit, small(faithful_pictures=9))
    assert (more["n"], more["intact"] != plain["intact"]) == (9, True)
    assert len(measure(vit, small(faithful_steps=5))["shares"]) == 6
    mean = measure(vit, small(faithful_fill="mean"))
    assert (mean["blur"], mean["intact"], mean["filled"] != plain["filled"]) == (None, plain["intact"], True)
    draws = measure(vit, small(faithful_draws=3))
    assert draws["orders"]["explanation"] == plain["orders"]["explanation"]
    assert draws["orders"]["random"] != plain["orders"]["random"]
    assert measure(vit, small(faithful_seed=1))["orders"] != plain["orders"]


def test_one_picture_has_no_interval(vit: Subject) -> None:
    result = measure(vit, small(faithful_pictures=1))
    assert result["differences"]["grid"]["deletion"]["low"] is None
    assert "(" not in lines(result)[-1]


def test_sample_is_stratified() -> None:
    labels = np.random.default_rng(0).choice(4, 400, p=[0.5, 0.3, 0.15, 0.05])
    shares = np.bincount(labels) * 50 / 400
    for seed in range(5):
        chosen = stratified_sample(labels, 50, seed)
        assert (np.diff(chosen) > 0).all()
        assert len(chosen) == 50
        assert (np.abs(np.bincount(labels[chosen], minlength=4) - shares) < 1).all()
        np.testing.assert_array_equal(chosen, stratified_sample(labels, 50, seed))
    assert not np.array_equal(stratified_sample(labels, 50, 0), stratified_sample(labels, 50, 1))
    np.testing.assert_array_equal(stratified_sample(labels, 400, 0), np.arange(400))
    np.testing.assert_array_equal(stratified_sample(labels, 1000, 0), np.arange(400))


def test_fills() -> None:
    subject = digits_subject(size=48)
    image = eval_transform(subject.preprocessing)(subject.catalogue.reader(0))
    blurred, mean = fill_of(image[None], "blur")[0], fill_of(image[None], "mean")[0]
    expected = np.stack([gaussian_filter(channel, 48 / 8, mode="nearest") for channel in image.numpy()])
    np.testing.assert_allclose(blurred, expected, atol=1e-6)
    for channel, filled in zip(image, mean, strict=True):
        assert (filled == channel.mean()).all()


@pytest.mark.parametrize("name", ["faithful_pictures", "faithful_steps", "faithful_draws"])
def test_impossible_options(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} must be at least 1, not 0"):
        FaithfulnessOptions(True, **{name: 0})
