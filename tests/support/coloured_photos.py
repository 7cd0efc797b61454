"""Folders of noisy pictures in three colours, and `index` on a small network that makes checkpoints of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fgdemo.checkpoint import Checkpoint

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 40), "red": (220, 30, 30)}
PLAIN = ["--device", "cpu", "--workers", "0", "--threads", "1"]
QUICK = ["--encoder", "test_resnet", "--no-pretrained", "--img-size", "32", *PLAIN]


def draw(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    """A noisy picture around one colour."""
    noise = np.random.default_rng(seed).integers(-30, 31, (24, 32, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


def fill(folder: Path, each: int = 8, first: int = 0) -> Path:
    for name, colour in COLOURS.items():
        for i in range(first, first + each):
            draw(folder / name / f"{i}.png", colour, i)
    return folder


def ours(checkpoint: Checkpoint) -> dict[str, Any]:
    return checkpoint.config["fgdemo"]


def sizes(checkpoint: Checkpoint) -> list[int]:
    """Subclasses of each class."""
    return [entry["k"] for entry in checkpoint.subclasses["classes"]]
