"""Parameter groups, optimisers and schedules, all through timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from fgdemo.errors import UserError
from fgdemo.models import Network
from train.options import OptimOptions


def parameter_groups(
    network: Network, options: OptimOptions, new_modules: Sequence[str] = ()
) -> list[dict[str, object]]:
    """Trainable parameters grouped by learning-rate factor and weight decay.

    The factor is `layer_decay` to the number of blocks above a parameter, times `new_lr_scale` inside the
    modules whose names `new_modules` gives. Vectors (norms, biases, scales) and what the encoder lists as
    exempt (tokens, position tables) are not decayed.
    """
    depth = _layers_above(network) if options.layer_decay != 1.0 else {}
    exempt = _without_decay(network)
    prefixes = tuple(f"{name}." for name in new_modules)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = options.layer_decay ** depth.get(name, 0)
        if name.startswith(prefixes):
            scale *= options.new_lr_scale
        decay = 0.0 if parameter.ndim <= 1 or name in exempt else options.weight_decay
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def build_optimizer(groups: list[dict[str, object]], options: OptimOptions) -> torch.optim.Optimizer:
    """The named optimiser over `groups`; its learning rate is set by the schedule before every step."""
    if options.opt not in list_optimizers():
        raise UserError(f"Unknown optimiser '{options.opt}'; choose one of timm's: {', '.join(list_optimizers())}.")
    info = get_optimizer_info(options.opt)
    betas = {"betas": (options.momentum, 0.999)} if info.has_betas and info.num_betas == 2 else {}
    return create_optimizer_v2(
        groups,
        opt=options.opt,
        lr=options.lr,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        **betas,
    )


def build_schedule(optimizer: torch.optim.Optimizer, options: OptimOptions, steps_per_epoch: int) -> Scheduler:
    """A schedule whose rate is a pure function of the step given to `step_update`: nothing of it is saved."""
    warmup = round(options.warmup_epochs * steps_per_epoch)
    total = max(1, options.epochs * steps_per_epoch - warmup)
    common = {
        "warmup_t": warmup,
        "warmup_lr_init": options.lr * 1e-3,
        "warmup_prefix": True,
        "t_in_epochs": False,
    }
    if options.sched in ("cosine", "restarts"):
        cycles = options.restarts if options.sched == "restarts" else 1
        return CosineLRScheduler(
            optimizer, t_initial=max(1, total // cycles), lr_min=options.min_lr, cycle_limit=cycles, **common
        )
    rate = options.decay_rate if options.sched == "step" else 1.0
    decay = max(1, round(options.decay_epochs * steps_per_epoch))
    return StepLRScheduler(optimizer, decay_t=decay, decay_rate=rate, **common)


@dataclass(frozen=True)
class OptimizerPlan:
    """One optimiser that a method asks for.

    Attributes:
        groups: the parameters it steps, as `parameter_groups` gives them.
        options: its algorithm, rates and schedule.
    """

    groups: list[dict[str, object]]
    options: OptimOptions


class OptimizerSet:
    """Named optimisers that step as one, each on a schedule of its own.

    Accelerate and its gradient scaler see a single optimiser: gradients are unscaled once, and an overflow skips the
    step of all members.

    Attributes:
        members: the torch optimisers by name.

    Raises:
        ValueError: two members share a parameter.
    """

    def __init__(self, plans: Mapping[str, OptimizerPlan], steps_per_epoch: int) -> None:
        self.members = {name: build_optimizer(plan.groups, plan.options) for name, plan in plans.items()}
        self._plans = dict(plans)
        self._steps_per_epoch = steps_per_epoch
        self._schedules = {
            name: build_schedule(member, plans[name].options, steps_per_epoch) for name, member in self.members.items()
        }
        owned = [id(parameter) for group in self.param_groups for parameter in group["params"]]
        if len(set(owned)) < len(owned):
            raise ValueError(f"a parameter belongs to two of the optimisers {', '.join(self.members)}")

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all members."""
        return [group for member in self.members.values() for group in member.param_groups]

    def set_rates(self, step: int) -> None:
        """Give every member its learning rates for this step of the run."""
        for name, schedule in self._schedules.items():
            per_epoch = self._plans[name].options.sched_per == "epoch"
            schedule.step_update(step - step % self._steps_per_epoch if per_epoch else step)

    def step(self, closure: None = None) -> None:
        for member in self.members.values():
            member.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for member in self.members.values():
            member.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {name: member.state_dict() for name, member in self.members.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, member in self.members.items():
            member.load_state_dict(state[name])


def _layers_above(network: Network) -> dict[str, int]:
    """For every encoder parameter, how many of timm's layer groups lie above its own."""
    net = network.encoder.net
    if not hasattr(net, "group_matcher"):
        raise UserError(f"{network.encoder.name} names no layers: --layer-decay must stay 1 for it.")
    layer = group_parameters(net, net.group_matcher(coarse=False), reverse=True)
    top = max(layer.values())
    by_parameter = {id(parameter): top - layer[name] for name, parameter in net.named_parameters()}
    return {name: by_parameter.get(id(parameter), 0) for name, parameter in network.named_parameters()}


def _without_decay(network: Network) -> set[str]:
    net = network.encoder.net
    names = set(net.no_weight_decay()) if hasattr(net, "no_weight_decay") else set()
    exempt = {id(parameter) for name, parameter in net.named_parameters() if name in names}
    return {name for name, parameter in network.named_parameters() if id(parameter) in exempt}
