"""What a run writes while it goes: metrics.jsonl, the trackers that Accelerate knows, the progress bar."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType
from tqdm import tqdm

from fgdemo.errors import UserError
from train.files import write_text


def parse_trackers(names: str) -> list[str]:
    """The tracker names in a comma separated option.

    Raises:
        UserError: Accelerate does not know one of them, or its package is not installed.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]
    known = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
    for name in chosen:
        if name not in known:
            raise UserError(f"Unknown tracker '{name}'; choose among {', '.join(known)}, or none.")
        if LoggerType(name) not in get_available_trackers():
            raise UserError(f"Tracker '{name}' is not installed: pip install {name}, or --trackers none.")
    return chosen


class RunLog:
    """Rows of a run, on the main process only.

    A row in metrics.jsonl holds the step, the epoch and named figures; what depends on the clock stands apart under
    `seconds`, so that two runs can be compared row by row.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, start_step: int) -> None:
        self.accelerator = accelerator
        self.path = folder / "metrics.jsonl"
        self.active = accelerator.is_main_process
        if self.active:
            self._drop_rows_after(start_step)

    def _drop_rows_after(self, step: int) -> None:
        """A resumed run writes again what the killed one had written past its last saved state."""
        rows = read_rows(self.path)
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows if 0 < row["step"] <= step))

    def write(self, step: int, epoch: int, figures: dict[str, float], seconds: float) -> None:
        """Append one row and hand its figures to the trackers."""
        self.accelerator.log(figures, step=step)
        if self.active:
            row = {"step": step, "epoch": epoch, **figures, "seconds": round(seconds, 3)}
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl; a last line that a kill cut short is left out."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows


def run_seconds(rows: list[dict[str, Any]]) -> float:
    """Seconds that a run took in all its parts: its clock starts again at 0 whenever it is resumed."""
    clock = [row["seconds"] for row in rows]
    return sum(now for now, then in zip(clock, [*clock[1:], 0.0], strict=False) if then < now)


class Progress:
    """A bar with rate and remaining time on a terminal; one line an epoch elsewhere."""

    def __init__(self, accelerator: Accelerator, total: int, start: int) -> None:
        self.main = accelerator.is_main_process
        terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=total, initial=start, unit="step", disable=not (self.main and terminal), dynamic_ncols=True
        )

    def step(self) -> None:
        self.bar.update()

    def show(self, figures: dict[str, float]) -> None:
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()}, refresh=False)

    def line(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self.main:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        self.bar.close()
