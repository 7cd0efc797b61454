"""The one training loop of all methods.

Everything random in it is keyed, not carried: the order of samples by (seed, epoch), augmentation by (seed, epoch,
sample), dropout and mixing by (seed, step, micro-batch, process). A run that was killed and resumed therefore meets the
same draws as one that was not, and its state needs no generator.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.utils.data import DataLoader

from fgdemo.data import (
    ClassBalancedSampler,
    EpochSampler,
    ImageSplit,
    Preprocessing,
    Sample,
    eval_transform,
    keyed_seed,
)
from fgdemo.errors import UserError
from fgdemo.models import Network
from train.inference import Outputs, run_split
from train.launch import StopSignal, leave_signals_to_parent
from train.methods import BetweenEpochs, Method
from train.metrics import classification_metrics
from train.optim import OptimizerSet
from train.options import OptimOptions, RunOptions
from train.state import StateWriter, TrainingState, list_states, load_state, pack_optimizer, unpack_optimizer
from train.tracking import Progress, RunLog

_NOT_FINITE = (
    "The loss or the weights are not finite any more at step {step}; the last saved state is untouched: "
    "lower --lr, set --clip-grad 1, or use --precision bf16 in place of fp16."
)


class Stopped(Exception):
    """A signal ended the run after a last state was saved."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        step: optimiser steps done since the start of the run.
        epoch: the epoch that the next step belongs to, from 0.
        best: best validation top-1 so far, -1 before the first evaluation.
        window: steps summed in the running means of the losses, since the last logged row.
    """

    step: int = 0
    epoch: int = 0
    best: float = -1.0
    window: int = 0


class Engine:
    """Trains the network of a method on one split, evaluates it on another, saves and resumes.

    Args:
        preprocessing: how pictures are seen without augmentation.
        identity: the options that a resumed run must share with the one that saved its state.
        folder: the run's folder, which exists and belongs to this run.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        method: Method,
        network: Network,
        train: ImageSplit,
        val: ImageSplit | None,
        *,
        optim: OptimOptions,
        run: RunOptions,
        preprocessing: Preprocessing,
        workers: int,
        identity: dict[str, Any],
        folder: Path,
    ) -> None:
        self.accelerator, self.method, self.network = accelerator, method, network
        self.train_split, self.val_split, self.preprocessing = train, val, preprocessing
        self.optim, self.run_options, self.workers = optim, run, workers
        self.identity = {
            **identity,
            "processes": accelerator.num_processes,
            "mixed_precision": accelerator.mixed_precision,
        }
        self.folder = folder
        method.check(optim)
        self.sampler = _sampler(accelerator, train, optim, run.seed)
        self.steps_per_epoch = self.sampler.batches_per_epoch
        self.total_steps = self.steps_per_epoch * optim.epochs

        network.to(accelerator.device)
        method.prepare(network, accelerator.device)
        self.optimizers = OptimizerSet(method.optimizers(network, optim), self.steps_per_epoch)
        self.optimizer = accelerator.prepare_optimizer(self.optimizers)
        self.ema = ModelEmaV3(network, decay=optim.ema, use_warmup=True) if optim.ema else None
        model = torch.compile(network) if run.compile else network
        self.model = accelerator.prepare_model(model)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.position = Position()
        self.sums: dict[str, Tensor] = {}
        self.writer = StateWriter()

    @property
    def evaluated(self) -> Network:
        """The network that is evaluated and exported: the averaged one where there is one."""
        return self.ema.module if self.ema else self.network

    # The loop ------------------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train to the last epoch.

        Raises:
            Stopped: SIGTERM or Ctrl-C, after a last state was saved.
            UserError: the loss is no longer a number, or the disk refuses a state.
        """
        stop = StopSignal()
        self.log = RunLog(self.accelerator, self.folder, self.position.step)
        self.progress = Progress(self.accelerator, self.total_steps, self.position.step)
        loader = self._loader()
        self.clock = time.monotonic()
        if self.run_options.snapshot_every and self.position.step == 0:
            self._save_snapshot()
        try:
            while self.position.epoch < self.optim.epochs:
                self._train_epoch(loader, stop)
                self.position.epoch += 1
                self._end_epoch()
        finally:
            self.progress.close()
            self.writer.flush()
        self.accelerator.wait_for_everyone()

    def _loader(self) -> DataLoader:
        self.batches = _EpochBatches(self.sampler, self.optim.batch_size)
        return DataLoader(
            self.train_split,
            batch_sampler=self.batches,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=self.accelerator.device.type == "cuda",
            # Its own generator, so that starting an iterator draws nothing from the global one.
            generator=torch.Generator(),
        )

    def _train_epoch(self, loader: DataLoader, stop: StopSignal) -> None:
        position, options = self.position, self.run_options
        self.network.train()
        self.batches.epoch = position.epoch
        self.batches.start = position.step - position.epoch * self.steps_per_epoch
        if self.batches.start == 0:
            self.method.between_epochs(self.network, self._between_epochs())
        batches = iter(loader)
        for _ in range(self.batches.start, self.steps_per_epoch):
            self._step(batches)
            self.progress.step()
            if position.step % options.log_every == 0:
                self._log_losses()
            if options.checkpoint_every and position.step % options.checkpoint_every == 0:
                self._save()
            if self._agree_to_stop(stop):
                self._save()
                raise Stopped(stop.exit_code or 1)

    def _step(self, batches: Iterator[Sample]) -> None:
        """One optimiser step; nothing in it waits for the device."""
        position, optim = self.position, self.optim
        self.optimizers.set_rates(position.step)
        for micro in range(optim.accumulate):
            batch = next(batches)
            batch = batch._replace(
                image=batch.image.to(self.accelerator.device, non_blocking=True),
                label=batch.label.to(self.accelerator.device, non_blocking=True),
            )
            self._seed_draws(micro)
            if micro < optim.accumulate - 1:
                with self.accelerator.no_sync(self.model):
                    self._backward(batch)
            else:
                self._backward(batch)
        if optim.clip_grad:
            self.accelerator.clip_grad_norm_(self.parameters, optim.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.end_step(self.network, self._total, self.steps_per_epoch)
        position.step += 1
        position.window += 1
        if self.ema:
            self.ema.update(self.network, step=position.step)

    def _backward(self, batch: Sample) -> None:
        losses = self.method.training_step(self.model, batch)
        self.accelerator.backward(losses["total"] / self.optim.accumulate)
        for name, value in losses.items():
            part = value.detach().float() / self.optim.accumulate
            self.sums[name] = self.sums[name] + part if name in self.sums else part

    def _total(self, tensor: Tensor) -> Tensor:
        return self.accelerator.reduce(tensor, "sum")

    def _seed_draws(self, micro: int) -> None:
        rank = self.accelerator.process_index
        seed = keyed_seed(self.run_options.seed, "step", self.position.step, micro, rank)
        random.seed(seed)
        np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
        torch.manual_seed(seed)

    def _agree_to_stop(self, stop: StopSignal) -> bool:
        """Alone: at once. With others: when losses are exchanged, so that all stop at the same step."""
        if self.accelerator.num_processes == 1:
            return stop.requested
        if self.position.step % self.run_options.log_every:
            return False
        flag = torch.tensor([int(stop.requested)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    # Between epochs ------------------------------------------------------------------------------------------------

    def _between_epochs(self) -> BetweenEpochs:
        position = self.position

        def log(figures: dict[str, float]) -> None:
            self.log.write(position.step, position.epoch, figures, time.monotonic() - self.clock)

        return BetweenEpochs(
            epoch=position.epoch,
            device=self.accelerator.device,
            features=self._clean_features,
            total=self._total,
            first=self.accelerator.is_main_process,
            seed=self.run_options.seed,
            log=log,
        )

    def _clean_features(self) -> Outputs:
        return run_split(
            self.accelerator,
            self.network,
            self.train_split.with_transform(eval_transform(self.preprocessing)),
            batch_size=self.optim.batch_size,
            workers=self.workers,
        )

    def _end_epoch(self) -> None:
        position = self.position
        last = position.epoch == self.optim.epochs
        line = f"epoch {position.epoch}/{self.optim.epochs}"
        if self.val_split is not None and (last or position.epoch % self.run_options.eval_every == 0):
            figures = self._validate()
            line += f"  val top-1 {figures['val/top1']:.4f}  val nll {figures['val/nll']:.4f}"
        if self.run_options.snapshot_every and position.epoch % self.run_options.snapshot_every == 0:
            self._save_snapshot()
        self._save()
        self.progress.line(f"{line}  {time.monotonic() - self.clock:.0f} s")

    def _validate(self) -> dict[str, float]:
        assert self.val_split is not None
        output = run_split(
            self.accelerator,
            self.evaluated,
            self.val_split,
            batch_size=self.optim.batch_size,
            workers=self.workers,
        )
        metrics = classification_metrics(output.logits, output.labels)
        figures = {f"val/{name}": metrics[name] for name in ("top1", "top5", "macro", "nll", "ece")}
        self.log.write(self.position.step, self.position.epoch, figures, time.monotonic() - self.clock)
        if metrics["top1"] > self.position.best:
            self.position.best = metrics["top1"]
            self._save_best()
        return figures

    def _log_losses(self) -> None:
        """Mean losses since the last row, over the processes; refuses to go on with a loss that is no number."""
        names = sorted(self.sums)
        sums = torch.stack([self.sums[name] for name in names])
        means = (self.accelerator.reduce(sums, "mean") / self.position.window).tolist()
        figures = {f"loss/{name}": value for name, value in zip(names, means, strict=True)}
        if not all(np.isfinite(means)):
            raise UserError(_NOT_FINITE.format(step=self.position.step))
        figures["lr"] = max(group["lr"] for group in self.optimizers.param_groups)
        self.log.write(self.position.step, self.position.epoch, figures, time.monotonic() - self.clock)
        self.progress.show(figures)
        self.sums, self.position.window = {}, 0

    # State ---------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        self.method.gather_state(self._total)
        if self.accelerator.is_main_process:
            packed = {name: pack_optimizer(member) for name, member in self.optimizers.members.items()}
            tensors = {
                "model": self.network.state_dict(),
                **{f"optimizer-{name}": values for name, (values, _) in packed.items()},
                "method": self.method.state_dict(),
                "sums": self.sums,
            }
            if self.ema:
                tensors["ema"] = self.ema.module.state_dict()
            scaler = self.accelerator.scaler
            info = {
                "identity": self.identity,
                "position": vars(self.position),
                "optimizers": {name: plain for name, (_, plain) in packed.items()},
                "scaler": scaler.state_dict() if scaler else None,
            }
            if not all(_finite(tensors[stem]) for stem in ("model", "sums")):
                raise UserError(_NOT_FINITE.format(step=self.position.step))
            self.writer.save(
                self.folder / "state",
                TrainingState(self.position.step, tensors, info),
                keep=self.run_options.keep,
            )

    def _save_best(self) -> None:
        self._save_weights("best", {"top1": self.position.best}, keep=1)

    def _save_snapshot(self) -> None:
        self._save_weights("epochs", {}, keep=self.optim.epochs + 1)

    def _save_weights(self, name: str, info: dict[str, Any], keep: int) -> None:
        if self.accelerator.is_main_process:
            info = {"identity": self.identity, "epoch": self.position.epoch, **info}
            state = TrainingState(self.position.step, {"model": self.evaluated.state_dict()}, info)
            self.writer.save(self.folder / name, state, keep=keep)

    def resume(self, which: str) -> None:
        """Go on from a saved state: `latest`, or the path of one.

        Raises:
            UserError: there is none, it is damaged, or it belongs to a run with other options.
        """
        path = Path(which)
        if which == "latest":
            states = list_states(self.folder / "state")
            if not states:
                raise UserError(f"{self.folder} holds no saved state to resume: leave --resume out to start there.")
            path = states[-1]
        state = load_state(path)
        _check_identity(path, state.info.get("identity", {}), self.identity)
        self.network.load_state_dict(state.tensors["model"])
        if self.ema:
            self.ema.module.load_state_dict(state.tensors["ema"])
        self.method.load_state_dict(state.tensors["method"])
        for name, member in self.optimizers.members.items():
            unpack_optimizer(member, state.tensors[f"optimizer-{name}"], state.info["optimizers"][name])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state.info["scaler"])
        self.position = Position(**state.info["position"])
        device = self.accelerator.device
        self.sums = {name: value.to(device) for name, value in state.tensors["sums"].items()}
        self.accelerator.print(f"resumed from {path}: step {self.position.step} of {self.total_steps}")


def _sampler(accelerator: Accelerator, split: ImageSplit, optim: OptimOptions, seed: int) -> EpochSampler:
    """Batches of one optimiser step of this process."""
    batch_size = optim.batch_size * optim.accumulate
    common = {"seed": seed, "rank": accelerator.process_index, "world": accelerator.num_processes}
    if optim.per_class:
        return ClassBalancedSampler(
            split.targets, batch_size, per_class=optim.per_class, micro_batch=optim.batch_size, **common
        )
    if optim.views > 1:
        # each picture as a class of its own, of which it is the only one: it comes again, augmented anew
        pictures = np.arange(len(split))
        return ClassBalancedSampler(pictures, batch_size, per_class=optim.views, micro_batch=optim.batch_size, **common)
    return EpochSampler(len(split), batch_size, **common)


class _EpochBatches:
    """Micro-batches of the epoch that the engine has set, from the optimiser step it has set."""

    def __init__(self, sampler: EpochSampler, batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size
        self.epoch = self.start = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for rows in self.sampler.epoch(self.epoch, self.start):
            for first in range(0, len(rows), self.batch_size):
                yield rows[first : first + self.batch_size]


def _finite(tensors: dict[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors.values() if t.is_floating_point())


def _check_identity(path: Path, saved: dict[str, Any], current: dict[str, Any]) -> None:
    for name in sorted(saved.keys() | current.keys()):
        if saved.get(name) != current.get(name):
            raise UserError(
                f"{path} was saved with {name} = {saved.get(name)}, this run has {current.get(name)}: resume with "
                "the same options, or start a new run in another --output."
            )
