"""Parameter groups and schedules: who gets which rate, and when."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fgdemo.errors import UserError
from fgdemo.models import Network, build_network
from train.optim import OptimizerPlan, OptimizerSet, build_optimizer, build_schedule, parameter_groups
from train.options import OptimOptions

OPTIONS = OptimOptions(epochs=10, lr=1.0, weight_decay=0.1)


@pytest.fixture(scope="module")
def vit() -> Network:
    return build_network(
        "timm",
        architecture="vit_tiny_patch16_224",
        num_classes=3,
        img_size=32,
        model_args={"embed_dim": 24, "depth": 3, "num_heads": 2},
    )


def rates(network: Network, options: OptimOptions, new: tuple[str, ...] = ()) -> dict[str, tuple[float, float]]:
    """name -> (learning-rate factor, weight decay)"""
    groups = parameter_groups(network, options, new)
    by_id = {id(p): (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    return {name: by_id[id(p)] for name, p in network.named_parameters() if id(p) in by_id}


def test_every_parameter_is_in_one_group(vit: Network) -> None:
    groups = parameter_groups(vit, OPTIONS)
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids)) == len(list(vit.parameters()))


def test_no_decay_on_vectors_tokens_and_positions(vit: Network) -> None:
    for name, (_, decay) in rates(vit, OPTIONS).items():
        exempt = name.endswith(("bias", "cls_token", "pos_embed")) or "norm" in name
        assert decay == (0.0 if exempt else 0.1), name


def test_layer_decay_counts_blocks_from_the_top(vit: Network) -> None:
    found = rates(vit, replace(OPTIONS, layer_decay=0.5))
    scale = {name.removeprefix("encoder.net."): value[0] for name, value in found.items()}
    assert scale["head.weight"] == 1.0
    assert scale["blocks.2.mlp.fc1.weight"] == pytest.approx(0.5)
    assert scale["blocks.1.mlp.fc1.weight"] == pytest.approx(0.25)
    assert scale["blocks.0.mlp.fc1.weight"] == pytest.approx(0.125)
    assert scale["patch_embed.proj.weight"] == scale["cls_token"] == pytest.approx(0.0625)


def test_new_modules_get_their_own_rate(vit: Network) -> None:
    found = rates(vit, replace(OPTIONS, new_lr_scale=10.0), ("encoder.net.head",))
    assert {name for name, value in found.items() if value[0] == 10.0} == {
        "encoder.net.head.weight",
        "encoder.net.head.bias",
    }


def test_frozen_parameters_are_left_out() -> None:
    network = build_network("timm", architecture="resnet10t", num_classes=3)
    network.freeze_encoder()
    assert set(rates(network, OPTIONS)) == {"encoder.net.fc.weight", "encoder.net.fc.bias"}


def curve(options: OptimOptions, steps_per_epoch: int = 10) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = build_optimizer([{"params": [parameter], "lr_scale": 0.5, "weight_decay": 0.0}], options)
    schedule = build_schedule(optimizer, options, steps_per_epoch)
    values = []
    for step in range(options.epochs * steps_per_epoch):
        schedule.step_update(step)
        values.append(optimizer.param_groups[0]["lr"] / 0.5)
    return values


def test_cosine() -> None:
    values = curve(OPTIONS)
    for step in (0, 13, 50, 99):
        assert values[step] == pytest.approx(0.5 * (1 + math.cos(math.pi * step / 100)))


def test_warm_up_then_cosine_reaches_the_floor() -> None:
    values = curve(replace(OPTIONS, warmup_epochs=2, min_lr=0.01))
    assert values[0] == pytest.approx(0.001)
    assert values[10] == pytest.approx(0.001 + 0.999 / 2)
    assert values[20] == pytest.approx(1.0)
    assert values[99] < 0.012


def test_constant_step_and_restarts() -> None:
    assert set(curve(replace(OPTIONS, sched="constant"))) == {1.0}
    values = curve(replace(OPTIONS, sched="step", decay_epochs=4, decay_rate=0.1))
    assert [values[0], values[40], values[80]] == pytest.approx([1.0, 0.1, 0.01])
    values = curve(replace(OPTIONS, sched="restarts", restarts=2))
    assert values[50] == pytest.approx(1.0)
    assert values[49] < 0.01


@pytest.mark.parametrize("sched", ["cosine", "restarts", "step"])
def test_a_rate_depends_on_the_step_alone(sched: str) -> None:
    options = replace(OPTIONS, sched=sched, warmup_epochs=1)
    whole = curve(options)
    optimizer = build_optimizer(
        [{"params": [torch.nn.Parameter(torch.zeros(2, 2))], "lr_scale": 0.5, "weight_decay": 0.0}], options
    )
    schedule = build_schedule(optimizer, options, 10)
    schedule.step_update(37)
    assert optimizer.param_groups[0]["lr"] / 0.5 == whole[37]


def test_momentum_is_beta_one_of_adam_and_momentum_of_sgd() -> None:
    group = [{"params": [torch.nn.Parameter(torch.zeros(1))]}]
    assert build_optimizer(group, replace(OPTIONS, opt="adamw", momentum=0.8)).param_groups[0]["betas"][0] == 0.8
    assert build_optimizer(group, replace(OPTIONS, opt="sgd", momentum=0.8)).param_groups[0]["momentum"] == 0.8


def test_unknown_optimiser() -> None:
    with pytest.raises(UserError, match="adamw"):
        build_optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))]}], replace(OPTIONS, opt="adamwww"))


BODY = OptimOptions(epochs=3, lr=0.1, warmup_epochs=1)
HEAD = OptimOptions(epochs=3, lr=0.5, opt="sgd", sched="step", decay_epochs=1, decay_rate=0.5, sched_per="epoch")


def two_layers() -> tuple[torch.nn.Sequential, dict[str, OptimizerPlan]]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    plans = {
        name: OptimizerPlan([{"params": list(layer.parameters()), "lr_scale": 1.0, "weight_decay": 0.1}], options)
        for name, layer, options in (("body", model[0], BODY), ("head", model[1], HEAD))
    }
    return model, plans


def test_several_optimisers_do_what_each_would_alone() -> None:
    together, plans = two_layers()
    both = OptimizerSet(plans, steps_per_epoch=4)
    apart, plans = two_layers()
    alone = {name: build_optimizer(plan.groups, plan.options) for name, plan in plans.items()}
    schedules = {name: build_schedule(alone[name], plan.options, 4) for name, plan in plans.items()}
    inputs = torch.randn(12, 5, 3, generator=torch.Generator().manual_seed(1))
    for step, batch in enumerate(inputs):
        both.set_rates(step)
        together(batch).square().mean().backward()
        both.step()
        both.zero_grad()
        schedules["body"].step_update(step)
        schedules["head"].step_update(step // 4 * 4)
        apart(batch).square().mean().backward()
        for optimizer in alone.values():
            optimizer.step()
            optimizer.zero_grad()
        rates = [group["lr"] for group in both.param_groups]
        assert rates == [group["lr"] for optimizer in alone.values() for group in optimizer.param_groups]
    assert rates[1] == 0.125
    for one, other in zip(together.parameters(), apart.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_overflow_skips_every_optimiser_and_gradients_are_unscaled_once() -> None:
    model, plans = two_layers()
    both = OptimizerSet(plans, steps_per_epoch=4)
    both.set_rates(5)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    batch = torch.ones(1, 3)
    before = [p.clone() for p in model.parameters()]
    scaler.scale(model(batch).sum()).backward()
    model[1].bias.grad[0] = math.inf
    scaler.step(both)
    scaler.update()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert scaler.get_scale() == 2.0
    both.zero_grad()
    scaler.scale(model(batch).sum()).backward()
    scaler.unscale_(both)
    assert torch.equal(model[1].bias.grad, torch.ones(2))
    scaler.step(both)
    assert not torch.equal(model[0].weight, before[0])
    assert not torch.equal(model[1].bias, before[3])


def test_a_parameter_has_one_optimiser() -> None:
    _, plans = two_layers()
    with pytest.raises(ValueError, match="body, head"):
        OptimizerSet({"body": plans["body"], "head": plans["body"]}, steps_per_epoch=4)
