"""Checkpoints and runs to draw pages of, and what is inside a page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgdemo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from train.cli import build_parser, dump_yaml
from train.methods import METHODS
from train.options import GROUPS

HOSTILE = '</script><img src=x onerror="window.hacked=1">&lt;\'`${1}\x1b[2J<b>%{x}'
"""A name that tries to leave its place on a page, in a script, in a terminal and in plotly's templates."""


def island(text: str) -> dict[str, Any]:
    """The data inside a page."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


def rewrite(directory: Path, source: Checkpoint, **parts: Any) -> Path:
    """A copy of a checkpoint with another `config`, `gallery` or `subclasses`."""
    content = {
        "config": source.config,
        "weights": source.weights(),
        "gallery": source.gallery_tensors(),
        "subclasses": source.subclasses,
    }
    return write_checkpoint(directory, **{**content, **parts})


def write_hostile(directory: Path, source: Path) -> Path:
    """A copy of a checkpoint whose title, classes and subclasses all carry a hostile name."""
    checkpoint = read_checkpoint(source)
    subclasses = json.loads(json.dumps(checkpoint.subclasses))
    for entry in subclasses["classes"]:
        for member in entry["subclasses"]:
            member["name"] = f"{HOSTILE}{member['id']}"
    config = {**checkpoint.config, "label_names": [HOSTILE + name for name in checkpoint.config["label_names"]]}
    superclasses = [HOSTILE] * len(config["label_names"])
    config["fgdemo"] = {**config["fgdemo"], "title": HOSTILE, "superclass_names": superclasses}
    return rewrite(directory, checkpoint, config=config, subclasses=subclasses)


def write_run(
    folder: Path,
    top1: Sequence[float] = (0.5, 0.75),
    *,
    seed: int = 0,
    epochs: int | None = None,
    test: dict[str, Any] | None = None,
    command: str = "python -m train classify",
    **options: Any,
) -> Path:
    """A run of two steps an epoch that logged its loss at every step and was validated after each epoch."""
    folder.mkdir(parents=True)
    parser = build_parser("options", "", (*GROUPS, METHODS["classify"].Options))
    values = parser.parse_object({"seed": seed, "epochs": epochs or len(top1), "output": str(folder), **options})
    (folder / "options.yaml").write_text(dump_yaml(parser, values))
    (folder / "run.json").write_text(json.dumps({"method": "classify", "command": command}))
    rows = []
    for epoch, value in enumerate(top1):
        for step in (2 * epoch + 1, 2 * epoch + 2):
            rows.append({"step": step, "epoch": epoch, "loss/total": 1 / step, "seconds": 10.0 * step})
        rows.append({"step": 2 * epoch + 2, "epoch": epoch + 1, "val/top1": value, "seconds": 20.0 * epoch + 21})
    write_rows(folder, rows)
    if test is not None:
        (folder / "evaluation").mkdir()
        (folder / "evaluation" / "test.json").write_text(json.dumps({"metrics": test, "outcomes": {}, "sha256": {}}))
    return folder


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
