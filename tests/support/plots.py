"""Figures of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fgdemo.checkpoint import read_checkpoint
from fgdemo.plot.figure import Figure, make_figure


def figure_of(directory: Path, **options: Any) -> Figure:
    return make_figure(read_checkpoint(directory), **options)


def names_of(figure: Figure) -> list[str]:
    return [figure.groups[code].name for code in figure.codes]
