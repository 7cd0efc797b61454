"""`python -m train METHOD`: from options to a trained run folder and its checkpoint."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from filelock import FileLock, Timeout

from fgdemo.data import Preprocessing, squashed
from fgdemo.errors import UserError
from train.cli import build_parser, dump_yaml, normalise_argv, split_namespace
from train.data import open_catalogue, open_splits
from train.engine import Engine
from train.export import ExportOptions, export_run
from train.files import write_text
from train.launch import make_accelerator
from train.methods import METHODS, DataInfo
from train.novelty import borrowed_flag
from train.options import FREE_ON_RESUME, GROUPS, OF_THIS_MACHINE, DataOptions, OptimOptions, RunOptions
from train.tracking import parse_trackers


def train_command(name: str, argv: list[str]) -> None:
    """Parse, train, export.

    Raises:
        UserError: what the person can mend.
        Stopped: a signal ended the run; its state is saved.
    """
    method_class = METHODS[name]
    groups = (*GROUPS, method_class.Options)
    parser = build_parser(f"python -m train {name}", (method_class.__doc__ or "").strip(), groups)
    values = parser.parse_args(_with_saved_options(normalise_argv(argv, groups)))
    data, augment, encoder, optim, run, own = split_namespace(values, groups)
    check_options(optim, run)
    folder = Path(run.output or f"runs/{name}-{data.data}-{encoder.encoder}-{run.seed}")
    trackers = parse_trackers(run.trackers)
    accelerator = make_accelerator(run, log_with=trackers or None, project_dir=str(folder))
    set_seed(run.seed)

    catalogue = open_catalogue(data, run.seed)
    level = data.labels or catalogue.default_labels
    method = method_class(own, DataInfo.of(catalogue, level))
    network = method.build(encoder)
    if data.novelty_from:
        _check_novelty_source(data, encoder.encoder)
    preprocessing = Preprocessing.from_data_config(network.encoder.data_config)
    if augment.resize:
        preprocessing = squashed(preprocessing, augment.resize)
        network.encoder.data_config |= {"crop_pct": preprocessing.crop_pct, "crop_mode": preprocessing.crop_mode}
    train_split, val_split = open_splits(catalogue, data, augment, preprocessing, run.seed)

    plain = {key: value for key, value in values.as_dict().items() if key != "config"}
    with _claim(accelerator, folder, run):
        engine = Engine(
            accelerator,
            method,
            network,
            train_split,
            val_split,
            optim=optim,
            run=run,
            preprocessing=preprocessing,
            workers=data.workers,
            identity={
                "method": name,
                "classes": len(train_split.class_names),
                **{key: _jsonable(value) for key, value in plain.items() if key not in FREE_ON_RESUME},
            },
            folder=folder,
        )
        if run.resume:
            engine.resume(run.resume)
        elif accelerator.is_main_process:
            write_text(folder / "options.yaml", dump_yaml(parser, values))
            ours = {"network": network.network_name, "network_args": network.network_args()}
            about = {
                "method": name,
                "command": shlex.join(["python", "-m", "train", name, *_publishable(argv)]),
                "network": {**network.config(), "fgdemo": ours},
                "preprocessing": preprocessing.to_dict(),
            }
            write_text(folder / "run.json", json.dumps(about, indent=1) + "\n")
        if trackers:
            accelerator.init_trackers("fgdemo", config={key: str(value) for key, value in plain.items()})
        accelerator.print(_describe(engine))
        began = time.monotonic()
        engine.fit()
        accelerator.print(f"trained in {time.monotonic() - began:.0f} s")
        if run.export and not (folder / "checkpoint").exists():
            accelerator.print(f"checkpoint: {export_run(accelerator, folder, ExportOptions())}")
        # Last, since it also dissolves the group of processes.
        accelerator.end_training()


def check_options(optim: OptimOptions, run: RunOptions) -> None:
    """Refuse numbers that cannot be meant, before any work is done."""
    at_least = {
        "--epochs": (optim.epochs, 1),
        "--batch-size": (optim.batch_size, 1),
        "--accumulate": (optim.accumulate, 1),
        "--per-class": (optim.per_class, 0),
        "--views": (optim.views, 1),
        "--restarts": (optim.restarts, 1),
        "--keep": (run.keep, 1),
        "--eval-every": (run.eval_every, 1),
        "--log-every": (run.log_every, 1),
        "--checkpoint-every": (run.checkpoint_every, 0),
        "--snapshot-every": (run.snapshot_every, 0),
        "--weight-decay": (optim.weight_decay, 0),
        "--clip-grad": (optim.clip_grad, 0),
        "--warmup-epochs": (optim.warmup_epochs, 0),
    }
    for name, (value, least) in at_least.items():
        if value < least:
            raise UserError(f"{name} is {value}; it is at least {least}.")
    if optim.lr <= 0:
        raise UserError(f"--lr is {optim.lr}; it is greater than 0.")
    if not 0 <= optim.ema < 1:
        raise UserError(f"--ema is {optim.ema}; it lies between 0 (off) and 1, for example 0.999.")
    if optim.views > 1 and optim.per_class:
        raise UserError("--views and --per-class both say what comes together in a batch: give one of them.")
    if optim.warmup_epochs >= optim.epochs:
        raise UserError(f"--warmup-epochs {optim.warmup_epochs} leaves nothing of --epochs {optim.epochs}.")


def _check_novelty_source(data: DataOptions, encoder: str) -> None:
    """Refuse before training what the export would refuse after it."""
    if not data.include_val:
        raise UserError("--novelty-from is for --include-val; without it a run's own validation pictures set the flag.")
    borrowed_flag(Path(data.novelty_from or ""), data.data, encoder)


def _describe(engine: Engine) -> str:
    accelerator, network = engine.accelerator, engine.network
    trainable = sum(p.numel() for p in engine.parameters)
    total = sum(p.numel() for p in network.parameters())
    val = len(engine.val_split) if engine.val_split is not None else 0
    return (
        f"{engine.method.name}: {network.encoder.name} ({trainable / 1e6:.2f} of {total / 1e6:.2f} M parameters "
        f"trained) on {accelerator.num_processes} x {accelerator.device.type}, {accelerator.mixed_precision} mixed "
        f"precision\n{len(engine.train_split)} training and {val} validation pictures of "
        f"{len(engine.train_split.class_names)} classes, {engine.steps_per_epoch} steps an epoch -> {engine.folder}"
    )


def _jsonable(value: Any) -> Any:
    """As it reads back from JSON, so that saved and current options compare equal."""
    return list(value) if isinstance(value, tuple) else value


def _publishable(argv: list[str]) -> list[str]:
    """The command as a reader elsewhere can use it: without the folders of this machine."""
    kept: list[str] = []
    words = iter(argv)
    for word in words:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if name in OF_THIS_MACHINE:
            if "=" not in word and name not in ("resume", "overwrite"):
                next(words, None)
            continue
        kept.append(word)
    return kept


def _with_saved_options(argv: list[str]) -> list[str]:
    """When resuming, start from the options that the run was started with."""
    following = dict(pairwise(argv))
    if "--resume" in following and "--output" in following:
        saved = Path(following["--output"]) / "options.yaml"
        if saved.is_file():
            return ["--config", str(saved), *argv]
    return argv


@contextmanager
def _claim(accelerator: Accelerator, folder: Path, run: RunOptions) -> Iterator[None]:
    """Hold the run folder for as long as the block lasts: not one with another run in it, not one in use."""
    lock = FileLock(folder / ".lock")
    if accelerator.is_main_process:
        if (folder / "options.yaml").exists() and not (run.resume or run.overwrite):
            raise UserError(
                f"{folder} already holds a run: add --resume to go on with it, --overwrite to start again, or "
                "choose another --output."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            if run.overwrite and not run.resume:
                _clear(folder)
        except Timeout as error:
            raise UserError(f"{folder} is in use by a run that goes on: choose another --output.") from error
        except OSError as error:
            raise UserError(f"{folder} cannot be written ({error.strerror}): choose another --output.") from error
    accelerator.wait_for_everyone()
    try:
        yield
    finally:
        lock.release()


def _clear(folder: Path) -> None:
    """Remove what an earlier run left, and nothing else that may lie in the folder."""
    for name in ("state", "best", "epochs", "checkpoint", "evaluation", "fgdemo"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("metrics.jsonl", "options.yaml", "run.json"):
        (folder / name).unlink(missing_ok=True)
