"""Parameter groups, optimiser and schedule, all through timm."""

from __future__ import annotations

from collections.abc import Sequence

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
