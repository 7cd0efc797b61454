"""A subject of evaluation over the handwritten digits, with or without a network, and with outputs at will."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fgdemo.data import load_catalogue
from train.evaluation import Subject
from train.inference import Outputs
from train.launch import make_accelerator
from train.options import RunOptions


def digits_subject(
    network: nn.Module | None = None,
    *,
    logits: Tensor | None = None,
    embeddings: Tensor | None = None,
    size: int = 32,
    crop_pct: float = 1.0,
    level: str = "fine",
    **changes: Any,
) -> Subject:
    """The test split of the digits; given logits or embeddings, (270, C) and (270, D), stand for a pass over it."""
    preprocessing = {
        "input_size": [3, size, size],
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "crop_pct": crop_pct,
        "crop_mode": "center",
    }
    ours = {"title": "Ten digits", "preprocessing": preprocessing, "training": {"labels": level, "seed": 0}}
    catalogue = load_catalogue("digits")
    subject = Subject(
        target="digits",
        split="test",
        run=None,
        accelerator=make_accelerator(RunOptions(device="cpu")),
        checkpoint=SimpleNamespace(config={"fgdemo": ours}),
        network=network,
        catalogue=catalogue,
        batch_size=16,
        workers=0,
    )
    if logits is not None or embeddings is not None:
        index = torch.from_numpy(catalogue.rows("test"))
        labels = torch.from_numpy(catalogue.targets(level))[index]
        empty = torch.zeros(len(index), 1)
        subject._outputs["test"] = Outputs(
            index, labels, empty if logits is None else logits, empty if embeddings is None else embeddings
        )
    for name, value in changes.items():
        setattr(subject, name, value)
    return subject
