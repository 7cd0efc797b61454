"""`python -m train sweep FILE`: train and evaluate every row and seed that the ledger does not hold yet.

Rows run one after the other, seed by seed, each as a process of its own. A sweep may be killed at any moment and
started again another day: finished rows are skipped, the one that was under way resumes from its last saved state. A
finished row that others start from is trained again where its run is gone.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from fgdemo.checkpoint import read_checkpoint
from fgdemo.errors import UserError
from train.cli import build_parser, normalise_argv, split_namespace
from train.launch import LAUNCHER_MARK
from train.ledger import RESULTS, Entry, append, flatten, latest, provenance, read_ledger
from train.state import list_states
from train.sweep_file import OWN_RUN, Row, Sweep, fill_references, read_sweep, references
from train.tables import difference_table, sweep_table


@dataclass
class SweepOptions:
    """Where and how long"""

    work: str = "runs/sweeps"
    """folder for the runs"""
    ledger: str | None = None
    """file of results; not given: train/recipes/results/NAME.jsonl"""
    data_roots: dict[str, str] = field(default_factory=dict)
    """where data sets lie, as JSON: '{"flowers102": "DIR"}'"""
    only: str | None = None
    """comma separated rows to run; not given: all"""
    minutes: float = 0
    """stop after so long, saving the state of the row under way; 0: when all is done"""
    threads: int | None = None
    """processor threads of each process"""
    launcher: str = ""
    """what starts a training command, for example "accelerate launch --config_file FILE"; not given: this Python"""
    again: bool = False
    """run finished rows again; the newest result counts"""
    table: bool = False
    """run nothing, print the table"""


def sweep_command(argv: list[str]) -> None:
    """Parse, run what is missing, print the table.

    Raises:
        UserError: a bad file or option, or rows that failed.
    """
    parser = build_parser("python -m train sweep", "Run the missing rows of a sweep, print its table.", (SweepOptions,))
    parser.add_argument("file", type=str, help="the sweep, a YAML file")
    values = parser.parse_args(normalise_argv(argv, (SweepOptions,)))
    (options,) = split_namespace(values, (SweepOptions,))
    sweep = read_sweep(Path(values.file))
    ledger = Path(options.ledger) if options.ledger else RESULTS / f"{sweep.name}.jsonl"
    failed = [] if options.table else _Runner(sweep, ledger, options).run()
    entries = read_ledger(ledger)
    print(sweep_table(sweep, entries))
    if sweep.compare:
        print(difference_table(sweep, entries))
    if failed:
        raise UserError(f"{len(failed)} of the rows failed: {'; '.join(failed)}.")


class _Runner:
    def __init__(self, sweep: Sweep, ledger: Path, options: SweepOptions) -> None:
        self.sweep, self.ledger, self.options = sweep, ledger, options
        self.deadline = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
        chosen = [name.strip() for name in (options.only or "").split(",") if name.strip()]
        names = [row.name for row in sweep.rows]
        for name in chosen:
            if name not in names:
                raise UserError(f"--only {name} is none of the rows: {', '.join(names)}.")
        self.rows = [row for row in sweep.rows if not chosen or row.name in chosen]

    def run(self) -> list[str]:
        """All that is missing; the names of what failed."""
        failed = []
        # Seed by seed, so that a sweep that is stopped early has something to say of every row.
        seeds = sorted({seed for row in self.rows for seed in row.seeds})
        with _stoppable():
            for seed, row in ((seed, row) for seed in seeds for row in self.rows if seed in row.seeds):
                done = latest(read_ledger(self.ledger), row.name, row.setting)
                if seed in done and not self.options.again:
                    continue
                if time.monotonic() >= self.deadline:
                    print(f"{row.name}, seed {seed}: left for another time", flush=True)
                elif not self._trial(row, seed):
                    failed.append(f"{row.name} with seed {seed}")
        return failed

    def _trial(self, row: Row, seed: int) -> bool:
        """Train and evaluate one row with one seed, and enter it; False where it failed."""
        folder = self._folder(row, seed)
        began = time.monotonic()
        print(f"{row.name}, seed {seed}: -> {folder}", flush=True)
        trains = self.options.again or not (folder / "checkpoint").is_dir()
        reason = self._restore(row, seed, [*(row.options.values() if trains else ()), *row.evaluate.values()])
        if reason is None and trains:
            reason = self._train(row, seed, folder, again=self.options.again)
        if reason is None:
            evaluation = self._values(row, row.evaluate, seed)
            started = time.monotonic()
            reason = self._call(["evaluate", str(folder), *_words(evaluation)], folder)
            seconds = time.monotonic() - started
        if reason == _OUT_OF_TIME:
            print(f"{row.name}, seed {seed}: stopped, its state is saved", flush=True)
            return True
        about = provenance() | {"date": date.today().isoformat()}
        common = {
            "row": row.name,
            "setting": row.setting,
            "seed": seed,
            "method": row.method,
            "options": row.options,
            "evaluate": row.evaluate,
        }
        if reason is not None:
            print(f"{row.name}, seed {seed}: failed: {reason}", flush=True)
            append(self.ledger, Entry(status="failed", about=about | {"reason": _without_folders(reason)}, **common))
            return False
        entry = Entry(status="done", about=about, **_results(folder, row, seconds), **common)
        append(self.ledger, entry)
        shown = "  ".join(f"{name} {entry.figures[name]:.4f}" for name in self.sweep.figures if name in entry.figures)
        print(f"{row.name}, seed {seed}: {shown}  ({time.monotonic() - began:.0f} s)", flush=True)
        return True

    def _restore(self, row: Row, seed: int, values: Iterable[Any]) -> str | None:
        """Train again the rows that `values` refer to whose runs are gone; the reason where one failed.

        Raises:
            UserError: one has not been run yet.
        """
        for name in references(values):
            other, based = self.sweep.seed_of(name, seed), self.sweep.row(name)
            folder = self._folder(based, other)
            if (folder / "checkpoint").is_dir():
                continue
            if other not in latest(read_ledger(self.ledger), name, based.setting):
                raise UserError(
                    f"Row {row.name} starts from row {name}, which has not been run with seed {other}: run that first, "
                    f"with --only {name}."
                )
            print(f"{name}, seed {other}: in the ledger, but its run is gone: trained again -> {folder}", flush=True)
            reason = self._restore(based, other, based.options.values()) or self._train(based, other, folder)
            if reason is not None:
                return reason if reason == _OUT_OF_TIME else f"{name} with seed {other}, from which it starts: {reason}"
        return None

    def _train(self, row: Row, seed: int, folder: Path, again: bool = False) -> str | None:
        """From the start, or from the last saved state; the reason where it failed."""
        if list_states(folder / "state") and not again:
            words = ["--resume", *_words(self._of_this_machine(row))]
        else:
            words = [*_words(self._values(row, row.options, seed) | {"seed": seed}), "--overwrite"]
        return self._call([row.method, *words, "--output", str(folder)], folder, self.deadline)

    def _folder(self, row: Row, seed: int) -> Path:
        return Path(self.options.work) / self.sweep.name / f"{row.name}-{seed}-{row.training}"

    def _values(self, row: Row, values: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """Options as this machine needs them, with the folders of other rows."""
        folders = {name: self._folder(self.sweep.row(name), self.sweep.seed_of(name, seed)) for name in row.based_on}
        filled = fill_references(values, {**folders, OWN_RUN: self._folder(row, seed)})
        return filled | self._of_this_machine(row)

    def _of_this_machine(self, row: Row) -> dict[str, Any]:
        """Where the row's data lie, and how many threads a process gets."""
        values: dict[str, Any] = {}
        data = row.options.get("data", "scenes")
        if data in self.options.data_roots:
            values["data_root"] = self.options.data_roots[data]
        if self.options.threads:
            values["threads"] = self.options.threads
        return values

    def _call(self, words: list[str], folder: Path, deadline: float = float("inf")) -> str | None:
        """Run one command to its end, its output in a log beside the run; the reason where it failed."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        launcher = shlex.split(self.options.launcher) or [sys.executable]
        log = folder.with_suffix(".log")
        with log.open("a", encoding="utf-8") as stream:
            process = subprocess.Popen(
                [*launcher, "-m", "train", *words],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, LAUNCHER_MARK: "sweep"},
            )
            try:
                return self._wait(process, deadline, log)
            except BaseException:
                # the trainer saves its state and leaves
                process.terminate()
                process.wait()
                raise

    @staticmethod
    def _wait(process: subprocess.Popen[bytes], deadline: float, log: Path) -> str | None:
        left = deadline - time.monotonic()
        try:
            code = process.wait(None if left == float("inf") else max(1.0, left))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            return _OUT_OF_TIME
        if code == 0:
            return None
        said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return said[-1] if said else f"exit code {code}"


_OUT_OF_TIME = "out of time"


def _results(folder: Path, row: Row, seconds: float) -> dict[str, Any]:
    """Figures, outcomes and seconds of a finished run."""
    split = row.evaluate.get("split", "test")
    result = json.loads((folder / "evaluation" / f"{split}.json").read_text(encoding="utf-8"))
    ours = read_checkpoint(folder / "checkpoint").config["fgdemo"]
    measured = {name: value for name, value in result.items() if name not in ("outcomes", "sha256")}
    figures = flatten(measured.pop("metrics"), split) | flatten(measured, split)
    figures |= {f"val/{m['name']}": m["value"] for m in ours["metrics"] if m["split"] == "val"}
    outcomes = {f"{split}/{name}": outcome for name, outcome in result["outcomes"].items()}
    return {
        "figures": {name: round(value, 6) for name, value in sorted(figures.items())},
        "outcomes": outcomes,
        "seconds": {"train": ours["training"]["seconds"], "evaluate": round(seconds)},
    }


def _words(values: Mapping[str, Any]) -> list[str]:
    """Option values as words of a command line; jsonargparse reads JSON."""

    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    return [word for name, value in values.items() for word in (f"--{name}", text(value))]


def _without_folders(text: str) -> str:
    """A sentence without absolute paths, which mean nothing to a reader elsewhere."""
    return " ".join(word.rsplit("/", 1)[-1] if word.startswith("/") else word for word in text.split())


@contextmanager
def _stoppable() -> Any:
    """SIGTERM ends the sweep as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
