"""Class logits from subclass logits against straight loops, and the network that carries them."""

from __future__ import annotations

import json
import math

import pytest
import torch

from fgdemo.errors import UserError
from fgdemo.models import build_from_config, build_network
from fgdemo.models.subclass_network import SubclassNetwork, class_logits, column_slices

KS = (1, 2, 3)
CLASSES = 4


def make(ks=KS, name: str = "test_vit", **arguments) -> SubclassNetwork:
    torch.manual_seed(0)
    return build_network("subclasses", architecture=name, num_classes=CLASSES, ks=ks, img_size=64, **arguments).eval()


def straight(columns: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """Mean over hypotheses of the log of the mean exponential, one class and hypothesis after the other."""
    result = torch.zeros(columns.shape[:2])
    for b in range(len(columns)):
        for c in range(columns.shape[1]):
            logs = []
            for _, block in column_slices(KS):
                values = [math.exp(columns[b, c, j]) for j in range(block.start, block.stop) if active[c, j]]
                if values:
                    logs.append(math.log(sum(values) / len(values)))
            result[b, c] = sum(logs) / len(logs)
    return result


def some_active() -> torch.Tensor:
    """All; no K = 3; K = 1 alone; and a K = 2 with one of its columns."""
    active = torch.ones(CLASSES, sum(KS), dtype=torch.bool)
    active[1, 3:] = False
    active[2, 1:] = False
    active[3, 2] = False
    return active


def test_columns_of_each_hypothesis() -> None:
    assert column_slices((1, 2, 4)) == [(1, slice(0, 1)), (2, slice(1, 3)), (4, slice(3, 7))]


@pytest.mark.parametrize("which", ["all", "some"])
def test_class_logits_equal_a_straight_loop(which: str) -> None:
    columns = torch.randn(5, CLASSES, sum(KS), generator=torch.Generator().manual_seed(1)) * 3
    active = some_active() if which == "some" else torch.ones(CLASSES, sum(KS), dtype=torch.bool)
    torch.testing.assert_close(class_logits(columns, active, KS), straight(columns, active), atol=1e-5, rtol=1e-5)


def test_inactive_columns_have_no_gradient_and_no_nan() -> None:
    columns = torch.randn(5, CLASSES, sum(KS), generator=torch.Generator().manual_seed(1)).requires_grad_()
    active = some_active()
    class_logits(columns, active, KS).square().sum().backward()
    assert torch.isfinite(columns.grad).all()
    assert (columns.grad[:, ~active] == 0).all()
    assert (columns.grad[:, active] != 0).all()


def test_equal_subclass_logits_favour_no_class() -> None:
    columns = torch.full((2, CLASSES, sum(KS)), 0.7)
    torch.testing.assert_close(class_logits(columns, some_active(), KS), torch.full((2, CLASSES), 0.7))


@pytest.mark.parametrize("name", ["test_vit", "resnet18", "vit_mini_r10_s8_96", "deit_tiny_distilled_patch16_224"])
def test_one_hypothesis_of_one_is_the_plain_network(name: str) -> None:
    network = make((1,), name)
    torch.manual_seed(0)
    kind = "conv_vit" if name == "vit_mini_r10_s8_96" else "timm"
    plain = build_network(kind, architecture=name, num_classes=CLASSES, img_size=64).eval()
    for key, value in plain.weights().items():
        assert torch.equal(network.weights()[key], value), key
    images = torch.randn(2, 3, 64, 64)
    ours, theirs = network(images), plain(images)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.embedding, theirs.embedding)
    assert torch.equal(ours.subclass_logits[..., 0], theirs.logits)


@pytest.mark.parametrize("name", ["test_vit", "vit_conv_mini_patch16_128"])
def test_round_trip_through_config_and_weights(name: str) -> None:
    network = make(name=name)
    network.set_active(some_active())
    config = json.loads(json.dumps(network.config()))
    assert "architecture" not in config
    assert config["num_classes"] == CLASSES
    config["fgdemo"] = {"network": "subclasses", "network_args": json.loads(json.dumps(network.network_args()))}
    again = build_from_config(config).eval()
    again.load_weights(network.weights())
    images = torch.randn(2, 3, 64, 64)
    for ours, theirs in zip(network(images), again(images), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(again.active, some_active())
    assert (network(images).subclass_logits == -torch.inf).sum() == 2 * int((~some_active()).sum())


def test_bf16_and_one_graph() -> None:
    network = make()
    network.set_active(some_active())
    images = torch.randn(2, 3, 64, 64)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images).logits, network(images).logits)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images).logits
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("ks", [(), (0, 1), (2, 1), (2, 2), (1.5,), (True,)])
def test_bad_hypotheses_are_refused(ks: tuple) -> None:
    with pytest.raises(UserError, match="ascending whole numbers from 1"):
        make(ks)


def test_bad_weights_are_refused() -> None:
    network = make()
    weights = network.weights()
    with pytest.raises(UserError, match="active is missing"):
        network.load_weights({name: tensor for name, tensor in weights.items() if name != "active"})
    with pytest.raises(UserError, match="not the head's columns"):
        network.load_weights({**weights, "active": weights["active"][:, :2]})
    with pytest.raises(UserError, match="do not fit"):
        network.load_weights({**weights, "stray": torch.zeros(1)})
    with pytest.raises(ValueError, match="at least one"):
        network.set_active(torch.zeros_like(weights["active"]))
