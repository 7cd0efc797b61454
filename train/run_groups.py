"""Run folders read for comparison: what each was asked, what it logged, how far it got; seeds of one setting together.

Only small files are read, no weights and no pictures, so that runs can be compared where their data are not.
"""

from __future__ import annotations

import json
import re
from argparse import ArgumentError
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser

from fgdemo.errors import UserError
from train.cli import build_parser
from train.ledger import flatten
from train.methods import METHODS
from train.options import FREE_ON_RESUME, GROUPS
from train.state import list_states
from train.tracking import read_rows, run_seconds

TOP1 = "val/top1"
_NO_FIGURES = ("step", "epoch", "seconds")
_NAMED_IN_FULL = 3


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        command: as it was typed, without folders.
        options: all options of its method, as plain JSON values.
        rows: of metrics.jsonl.
        evaluated: the figures that `evaluate` wrote, under paths such as `test/top1`, as in the ledger.
        epochs_done: epochs that ended, as far as it is written down.
    """

    folder: Path
    method: str
    command: str
    options: dict[str, Any]
    rows: list[dict[str, Any]]
    evaluated: dict[str, float]
    epochs_done: int

    @property
    def seed(self) -> int:
        return self.options["seed"]

    @property
    def finished(self) -> bool:
        return self.epochs_done >= self.options["epochs"]

    @property
    def progress(self) -> str:
        """`finished`, or where it stands."""
        if self.finished:
            return "finished"
        step = self.rows[-1]["step"] if self.rows else 0
        return f"unfinished: {self.epochs_done} of {self.options['epochs']} epochs, step {step}"

    @cached_property
    def metrics(self) -> list[str]:
        """Names of the logged figures, in the order they first appeared."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name not in _NO_FIGURES))

    def curve(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps (n,) int64 and values (n,) float64 of one logged figure."""
        pairs = [(row["step"], row[metric]) for row in self.rows if metric in row]
        return np.array([step for step, _ in pairs], np.int64), np.array([value for _, value in pairs], np.float64)

    @cached_property
    def steps_per_epoch(self) -> float | None:
        """From the last validation, which ends an epoch; None before the first."""
        ends = [(row["step"], row["epoch"]) for row in self.rows if _is_validation(row)]
        return ends[-1][0] / ends[-1][1] if ends else None

    @property
    def seconds(self) -> float:
        """Of all its parts."""
        return run_seconds(self.rows)

    @property
    def best(self) -> float | None:
        """Highest validation top-1; None before the first validation."""
        values = self.curve(TOP1)[1]
        return float(values.max()) if len(values) else None

    @property
    def last(self) -> float | None:
        """Newest validation top-1."""
        values = self.curve(TOP1)[1]
        return float(values[-1]) if len(values) else None


@dataclass(frozen=True)
class RunGroup:
    """Runs whose options differ in the seed, and in what touches neither model nor samples, alone.

    Attributes:
        name: by the options that set it apart from the other groups.
        options: what its runs share, `method` among it.
        runs: by seed.
    """

    name: str
    options: dict[str, Any]
    runs: tuple[RunRecord, ...]

    @property
    def finished(self) -> list[RunRecord]:
        return [run for run in self.runs if run.finished]

    @property
    def steps_per_epoch(self) -> float | None:
        return next((run.steps_per_epoch for run in self.runs if run.steps_per_epoch), None)

    def mean_curve(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean of the finished runs at every step that all of them logged."""
        curves = [run.curve(metric) for run in self.finished]
        if not curves:
            return np.zeros(0, np.int64), np.zeros(0)
        steps = curves[0][0]
        for others, _ in curves[1:]:
            steps = np.intersect1d(steps, others)
        return steps, np.mean([values[np.isin(own, steps)] for own, values in curves], axis=0)


def find_runs(paths: Iterable[Path]) -> tuple[list[RunRecord], list[Path]]:
    """The runs in the folders named, each a run or a folder of runs, and the paths where there is nothing.

    Raises:
        UserError: a path that is no folder of a run and holds none, a damaged run, or nothing at all.
    """
    folders: dict[Path, Path] = {}
    missing = []
    for path in paths:
        found = [path] if (path / "options.yaml").is_file() else sorted(p.parent for p in path.glob("*/options.yaml"))
        if not found and path.exists():
            raise UserError(
                f"{path} is not the folder of a run and holds none: give the --output of training commands, or a "
                "folder of such folders."
            )
        missing += [] if found else [path]
        folders |= {folder.resolve(): folder for folder in found if folder.resolve() not in folders}
    if not folders:
        raise UserError(f"There is no run to report: {', '.join(map(str, missing))} cannot be found.")
    parsers: dict[str, ArgumentParser] = {}
    return [_read(folder, parsers) for folder in folders.values()], missing


def group_runs(runs: Sequence[RunRecord]) -> list[RunGroup]:
    """Runs by their options, groups and seeds in the order of the runs and of the seeds."""
    by_options: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_options.setdefault(json.dumps(_shared(run), sort_keys=True), []).append(run)
    members = [tuple(sorted(found, key=lambda run: run.seed)) for found in by_options.values()]
    options = [_shared(found[0]) for found in members]
    names = [_name(own, [option for option, _ in differences(options)]) for own in options]
    return [
        RunGroup(name if names.count(name) == 1 else f"{name} ({number})", own, found)
        for number, (name, own, found) in enumerate(zip(names, options, members, strict=True), start=1)
    ]


def differences(options: Sequence[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Every option that is not the same in all, with its values; None where one does not have it."""
    names = dict.fromkeys(name for own in options for name in own)
    columns = [(name, [own.get(name) for own in options]) for name in names]
    return [(name, values) for name, values in columns if any(value != values[0] for value in values)]


def _shared(run: RunRecord) -> dict[str, Any]:
    free = FREE_ON_RESUME | {"seed"}
    shared = {"method": run.method, **{name: value for name, value in run.options.items() if name not in free}}
    if shared["encoder_weights"]:
        # a run that starts from another run of a sweep starts from the one with its own seed
        shared["encoder_weights"] = re.sub(rf"-{run.seed}(?=[-/]|$)", "-SEED", shared["encoder_weights"])
    return shared


def _name(options: dict[str, Any], differing: list[str]) -> str:
    if not differing:
        return f"{options['method']} on {options['data']}, {options['encoder']}"
    shown = [f"{name}={options[name]}" if name in options else f"no {name}" for name in differing[:_NAMED_IN_FULL]]
    more = len(differing) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _read(folder: Path, parsers: dict[str, ArgumentParser]) -> RunRecord:
    try:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        method, command = str(about["method"]), str(about["command"])
        text = (folder / "options.yaml").read_text(encoding="utf-8")
        if method not in parsers:
            parsers[method] = build_parser("options", "", (*GROUPS, METHODS[method].Options))
            parsers[method].exit_on_error = False
        # options of a later version stand at their defaults; as JSON, so that tuples and lists compare equal
        values = json.loads(json.dumps(parsers[method].parse_string(text).as_dict()))
    except (OSError, ValueError, KeyError, TypeError, ArgumentError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise UserError(
            f"The run in {folder} cannot be read ({reason}): leave it out, or start it again with --overwrite."
        ) from error
    values.pop("config", None)
    rows = read_rows(folder / "metrics.jsonl")
    return RunRecord(folder, method, command, values, rows, _evaluated(folder), _epochs_done(folder, rows))


def _is_validation(row: dict[str, Any]) -> bool:
    return any(name.startswith("val/") for name in row)


def _epochs_done(folder: Path, rows: list[dict[str, Any]]) -> int:
    """By the last validation or the newest state, whichever knows of more."""
    validated = [row["epoch"] for row in rows if _is_validation(row)]
    saved = 0
    for state in list_states(folder / "state")[-1:]:
        saved = json.loads((state / "info.json").read_text(encoding="utf-8"))["position"]["epoch"]
    return max([saved, *validated])


def _evaluated(folder: Path) -> dict[str, float]:
    figures: dict[str, float] = {}
    for path in sorted((folder / "evaluation").glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            metrics = result.pop("metrics")
            del result["outcomes"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be read: remove it, or evaluate the run again.") from error
        figures |= flatten(metrics, path.stem) | flatten(result, path.stem)
    return figures
