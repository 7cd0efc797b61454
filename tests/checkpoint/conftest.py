"""A small but complete set of checkpoint parts, made by code, and the means to damage a written one."""

from __future__ import annotations

import copy
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fgdemo.checkpoint import write_checkpoint
from fgdemo.gallery import Gallery

DIM = 6


def config() -> dict[str, Any]:
    return {
        "architecture": "some_net",
        "num_classes": 3,
        "label_names": ["daisy", "rose | <b>x</b>", "été"],
        "pretrained_cfg": {},
        "fgdemo": {
            "network": "timm",
            "network_args": {},
            "method": "classify",
            "options": {},
            "labels": "classes",
            "superclass_names": ["flower", "flower", "season"],
            "preprocessing": {
                "input_size": [3, 32, 32],
                "interpolation": "bicubic",
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
                "crop_pct": 0.9,
                "crop_mode": "center",
            },
            "embedding": {"space": "pooled", "dim": DIM, "metric": "cosine"},
            "novelty": {"threshold": 0.25, "quantile": 0.95, "measured": []},
            "training": {"dataset": "scenes", "command": "accelerate launch -m train classify", "seed": 0},
            "metrics": [
                {"split": "val", "name": "top1", "value": 0.875, "n": 40},
                {"split": "test", "name": "ece", "value": 0.03125, "n": 80},
            ],
        },
    }


def subclasses() -> dict[str, Any]:
    def member(identity: int, name: str) -> dict[str, Any]:
        return {"id": identity, "name": name, "size": 5, "inertia": 0.1, "silhouette": 0.3}

    return {
        "schema": 1,
        "next_id": 9,
        "engine": "sklearn",
        "seed": 0,
        "classes": [
            {
                "class_id": 0,
                "k": 2,
                "chosen_by": "silhouette",
                "scores": {"1": 0.0, "2": 0.4},
                "subclasses": [member(7, "2"), member(4, "1")],
            },
            {"class_id": 1, "k": 1, "chosen_by": "silhouette", "scores": {}, "subclasses": [member(5, "1")]},
        ],
    }


def webp(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def gallery() -> Gallery:
    """20 rows: 15 train, 3 val, 2 test; classes 0, 0, 1, 2 in turn; row 3 has no thumbnail, row 2 a blue one."""
    rng = np.random.default_rng(0)
    class_id = np.tile([0, 0, 1, 2], 5)
    return Gallery.build(
        rng.normal(size=(20, DIM)),
        class_id=class_id,
        split=np.repeat([0, 1, 2], [15, 3, 2]),
        keys=[f"scenes/ü{row:02d}.png" for row in range(20)],
        thumbnails=[b"" if row == 3 else webp((0, 0, 255) if row == 2 else (9, 9, 9)) for row in range(20)],
        subclass_id=np.tile([7, 4, 5, -1], 5),
        subclasses=subclasses(),
    )


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"head.weight": torch.randn(3, DIM, generator=generator), "bn.num_batches_tracked": torch.tensor(11)}


def write(directory: Path, **changes: Any) -> Path:
    parts = {
        "config": config(),
        "weights": weights(),
        "gallery": gallery().to_tensors(),
        "subclasses": subclasses(),
    }
    return write_checkpoint(directory, **{**parts, **changes})


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that no test changes."""
    return write(tmp_path_factory.mktemp("checkpoints") / "small")


class Damage:
    """Changes one thing in a checkpoint directory, keeping the hashes of config.json true."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def json(self, name: str, *path: Any, value: Any = None, remove: bool = False) -> None:
        document = json.loads((self.directory / name).read_text(encoding="utf-8"))
        target = document
        for step in path[:-1]:
            target = target[step]
        if remove:
            del target[path[-1]]
        else:
            target[path[-1]] = copy.deepcopy(value)
        (self.directory / name).write_text(json.dumps(document), encoding="utf-8")

    def tensors(self, name: str, **changes: torch.Tensor | None) -> None:
        tensors = {**load_file(self.directory / name), **changes}
        save_file({k: v for k, v in tensors.items() if v is not None}, self.directory / name)
        self.rehash(name)

    def rehash(self, name: str) -> None:
        digest = hashlib.sha256((self.directory / name).read_bytes()).hexdigest()
        self.json("config.json", "fgdemo", "sha256", name, value=digest)


@pytest.fixture
def damage(tmp_path: Path) -> Damage:
    return Damage(write(tmp_path / "damaged"))
