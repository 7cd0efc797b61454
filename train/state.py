"""Training state on disk: safetensors and JSON under a manifest of hashes, complete or not there at all.

A run keeps its states in `state/step_000000123/`. A folder has that name only once every file in it has reached the
disk; older states are removed only after that.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fgdemo.checkpoint.atomic import write_directory
from fgdemo.checkpoint.store import file_sha256
from fgdemo.errors import UserError

STATE_VERSION = 2
_NAME = re.compile(r"step_(\d{9})$")


@dataclass
class TrainingState:
    """What a run needs to go on.

    Attributes:
        step: optimiser steps done.
        tensors: file stem (`model`, `ema`, `method`, `optimizer-main`, ...) -> its tensors.
        info: everything else, as JSON.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    info: dict[str, Any]


def save_state(folder: Path, state: TrainingState, keep: int) -> Path:
    """Write `state` to `folder/step_*`, then remove all but the newest `keep` states.

    Raises:
        UserError: the disk is full or the folder cannot be written; what was there before is untouched.
    """

    def fill(target: Path) -> None:
        for stem, tensors in state.tensors.items():
            on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(on_cpu, target / f"{stem}.safetensors")
        (target / "info.json").write_text(json.dumps(state.info, indent=1), encoding="utf-8")
        files = {
            path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for path in sorted(target.iterdir())
        }
        manifest = {"version": STATE_VERSION, "step": state.step, "files": files}
        (target / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    target = folder / f"step_{state.step:09d}"
    # Left by a run that was killed later than the state this one was resumed from.
    shutil.rmtree(target, ignore_errors=True)
    write_directory(target, fill)
    for old in list_states(folder)[:-keep]:
        shutil.rmtree(old)
    return target


class StateWriter:
    """Writes states one after the other in a thread of its own, while training goes on.

    What is handed over is copied first, to the processor's memory; at most two states wait there. A fault of the disk
    is raised by the next call of either method.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._pending: deque[Future[Path]] = deque()

    def save(self, folder: Path, state: TrainingState, keep: int) -> None:
        """As `save_state`, sooner or later."""
        self._wait_until_left(1)
        tensors = {
            stem: {name: tensor.detach().to("cpu", copy=True) for name, tensor in named.items()}
            for stem, named in state.tensors.items()
        }
        copy = TrainingState(state.step, tensors, json.loads(json.dumps(state.info)))
        self._pending.append(self._thread.submit(save_state, folder, copy, keep))

    def flush(self) -> None:
        """Return once everything is on the disk."""
        self._wait_until_left(0)

    def _wait_until_left(self, count: int) -> None:
        while len(self._pending) > count:
            self._pending.popleft().result()


def list_states(folder: Path) -> list[Path]:
    """Complete states in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.match(path.name) and path.is_dir())


def load_state(path: Path) -> TrainingState:
    """Read one state after checking every byte of it.

    Raises:
        UserError: a file is missing, damaged or foreign, or the state comes from a newer version.
    """
    remedy = "pass the path of an earlier state to --resume, or start again with --overwrite"
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        version, step, files = manifest["version"], int(manifest["step"]), dict(manifest["files"])
    except FileNotFoundError as error:
        raise UserError(f"{path} is not a training state: it has no manifest.json; {remedy}.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}/manifest.json is damaged; {remedy}.") from error
    if version != STATE_VERSION:
        raise UserError(f"{path} has state version {version}, this program reads {STATE_VERSION}; {remedy}.")
    for name, entry in files.items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{path} is incomplete: {name} is missing; {remedy}.")
        if file.stat().st_size != entry["size"] or file_sha256(file) != entry["sha256"]:
            raise UserError(f"{path} is damaged: {name} does not match its hash; {remedy}.")
    tensors = {
        name.removesuffix(".safetensors"): load_file(path / name) for name in files if name.endswith(".safetensors")
    }
    return TrainingState(step, tensors, json.loads((path / "info.json").read_text(encoding="utf-8")))


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimiser's state into named tensors and plain values."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                values.setdefault(str(index), {})[name] = value
    return tensors, {"values": values, "groups": state["param_groups"]}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """The inverse of `pack_optimizer`, into an optimiser over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    for index, entries in info["values"].items():
        state.setdefault(int(index), {}).update(entries)
    optimizer.load_state_dict({"state": state, "param_groups": info["groups"]})
