"""A small, fast training command, and how to run command lines as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

CONFIGS = ROOT / "train" / "recipes" / "accelerate"
LAUNCH = (sys.executable, "-m", "accelerate.commands.launch")
TWO = (*LAUNCH, "--config_file", str(CONFIGS / "cpu2.yaml"), "-m", "train")

# Four steps an epoch on a network of half a million parameters. One thread: the tests may share their cores.
SMALL = [
    *("--data", "digits", "--encoder", "test_resnet", "--no-pretrained", "--img-size", "32", "--cache"),
    *("--epochs", "2", "--batch-size", "256", "--lr", "0.003", "--hflip", "0", "--color-jitter", "0"),
    *("--workers", "0", "--threads", "1", "--device", "cpu", "--trackers", "none"),
]


def environment() -> dict[str, str]:
    """One thread a process, and nothing inherited from a launcher."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "TORCHELASTIC_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def start(*argv: str, launcher: tuple[str, ...] = (sys.executable, "-m", "train")) -> subprocess.Popen[str]:
    """Start the command line as a process of its own, in a process group of its own."""
    return subprocess.Popen(
        [*launcher, *argv],
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 240) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err
