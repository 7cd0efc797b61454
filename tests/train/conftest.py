"""The small training command and `index` on small pictures, run in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from support.coloured_photos import PLAIN, QUICK, fill
from support.commands import SMALL

from fgdemo.checkpoint import Checkpoint, read_checkpoint
from train.__main__ import main


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps its choices for the life of a process; each test makes its own."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Path]:
    """Train a small network in this process with further options; returns the run's folder."""

    def run(
        *options: str,
        name: str = "run",
        export: bool = False,
        code: int = 0,
        method: str = "classify",
        small: list[str] = SMALL,
    ) -> Path:
        AcceleratorState._reset_state(True)
        folder = tmp_path / name
        argv = [method, *small, "--output", str(folder), "--export", str(export).lower(), *options]
        assert main(argv) == code
        return folder

    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class folders of eight pictures."""
    return fill(tmp_path_factory.mktemp("source") / "photos")


@pytest.fixture
def index(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Run the command in this process; returns what it wrote."""

    def run(*words: str, name: str = "made", quick: bool = True) -> Checkpoint:
        AcceleratorState._reset_state(True)
        assert main(["index", *(QUICK if quick else PLAIN), *words, "--out", str(tmp_path / name)]) == 0
        return read_checkpoint(tmp_path / name)

    return run
