"""The ledger: one line of JSON for every finished or failed trial of a sweep, kept in the repository.

Tables are made from it and from nothing else. A line holds what was run (method, all options, evaluation), on what
(commit, machine, versions), and what came out: figures, and the outcome of every picture where two runs are to be
compared pair by pair.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from fgdemo.errors import UserError
from train.evaluation.outcomes import unpack
from train.files import write_text

RESULTS = Path("train/recipes/results")


@dataclass(frozen=True)
class Entry:
    """One trial.

    Attributes:
        row: name of the row in the sweep.
        setting: hash of everything that decides the result but the seed; trials with equal ones are repetitions.
        seed: of the training.
        status: "done" or "failed".
        method, options, evaluate: what was run; options without folders of a machine.
        figures: name -> value, such as "test/top1" as a fraction.
        outcomes: figure -> packed outcomes (`train.evaluation.outcomes`).
        seconds: of training and of evaluation.
        about: commit, machine, versions, date; or the reason of a failure.
    """

    row: str
    setting: str
    seed: int
    status: str
    method: str
    options: dict[str, Any]
    evaluate: dict[str, Any]
    figures: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)

    def outcome(self, figure: str) -> np.ndarray | None:
        """(N,) outcomes of a figure by picture, episode or resample, or None where they were not kept."""
        return unpack(self.outcomes[figure]) if figure in self.outcomes else None


def read_ledger(path: Path) -> list[Entry]:
    """All trials, oldest first; none where there is no file yet.

    Raises:
        UserError: a line that is no entry.
    """
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}, line {number}, is no entry of a ledger; remove or mend it.") from error
    return entries


def append(path: Path, entry: Entry) -> None:
    """Add one line, whole or not at all; several processes may add to one file at the same time.

    Raises:
        UserError: the file cannot be written.
    """
    line = json.dumps(asdict(entry), separators=(",", ":"), sort_keys=True) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            before = path.read_text(encoding="utf-8") if path.is_file() else ""
            write_text(path, before + line)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another --ledger.") from error


def latest(entries: Iterable[Entry], row: str, setting: str) -> dict[int, Entry]:
    """The newest finished trial of every seed."""
    return {e.seed: e for e in entries if e.row == row and e.setting == setting and e.status == "done"}


def setting_of(method: str, options: Mapping[str, Any], evaluate: Mapping[str, Any]) -> str:
    """Twelve hex digits that change with anything that decides the result."""
    text = json.dumps([method, dict(options), dict(evaluate)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def flatten(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The numbers in nested JSON under paths such as `test/discovery/oracle/raw pixels/ami`.

    Lists of named objects are entered by their names, other lists are left out.
    """
    figures: dict[str, float] = {}
    for name, value in values.items():
        path = f"{prefix}/{name}"
        if isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            figures[path] = value
        elif isinstance(value, Mapping):
            figures |= flatten(value, path)
        elif isinstance(value, list) and all(isinstance(item, Mapping) and "name" in item for item in value):
            for item in value:
                own = {key: part for key, part in item.items() if key != "k" or not isinstance(part, str)}
                inner = f"{item['k']}/{item['name']}" if isinstance(item.get("k"), str) else item["name"]
                figures |= flatten(own, f"{path}/{inner}")
    return figures


def provenance() -> dict[str, str]:
    """Commit, machine and versions of this moment."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "processor"
    return {
        "commit": _commit(),
        "machine": f"{_processor()}, {_cores()} cores, {device}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", "accelerate")},
    }


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py", "*.yaml")
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
