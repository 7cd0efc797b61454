"""From a run's folder to a checkpoint: weights, gallery, subclasses, figures, card."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate import Accelerator

from fgdemo.checkpoint import write_checkpoint
from fgdemo.gallery import Gallery
from fgdemo.models import Network
from fgdemo.recluster import divide
from train.checkpoint_parts import (
    CheckpointOptions,
    at_most_per_class,
    data_facts,
    divide_anew,
    encode_split,
    metric_rows,
    undivided_gallery,
)
from train.cli import build_parser, normalise_argv, split_namespace
from train.inference import Outputs
from train.launch import make_accelerator
from train.metrics import classification_metrics
from train.novelty import borrowed_flag, novelty_flag
from train.options import OF_THIS_MACHINE, RunOptions
from train.saved_run import SavedRun
from train.tracking import read_rows, run_seconds


@dataclass
class ExportOptions(CheckpointOptions):
    """What goes into the checkpoint"""

    out: str | None = None
    """folder of the checkpoint; not given: checkpoint/ in the run's folder; a taken name gets a sibling NAME-v2"""
    data_root: str | None = None
    """folder that holds the data set; not given: where it was during training"""
    weights: Literal["best", "last"] = "best"
    """the epoch that was best on validation, or the last one"""
    subclasses: Literal["method", "anew"] = "method"
    """subclasses that the method found while it trained (fgdcc), or of a new division, by the options of which
    --choose-k is the first; methods without subclasses are divided anew"""


def export_command(argv: list[str]) -> None:
    """Parse, export, say where."""
    parser = build_parser("python -m train export", "Write a run's checkpoint.", (ExportOptions,))
    parser.add_argument("run", type=str, help="a run's folder")
    values = parser.parse_args(normalise_argv(argv, (ExportOptions,)))
    (options,) = split_namespace(values, (ExportOptions,))
    accelerator = make_accelerator(RunOptions(device=options.device, threads=options.threads))
    path = export_run(accelerator, Path(values.run), options)
    accelerator.print(f"checkpoint: {path}")


def export_run(accelerator: Accelerator, folder: Path, options: ExportOptions) -> Path:
    """Write the checkpoint of the run in `folder`; called by every process, done by the first.

    Raises:
        UserError: the folder holds no finished epoch, or the checkpoint cannot be written.
    """
    run = SavedRun.open(folder, options.data_root)
    step, network = run.load_network(options.weights)
    network.to(accelerator.device)
    train, val = (
        encode_split(accelerator, network, run.catalogue, name, run.preprocessing, options, labels=run.level)
        for name in ("train", "val")
    )
    target = Path(options.out) if options.out else folder / "checkpoint"
    if accelerator.is_main_process:
        references = at_most_per_class(train, options.gallery_per_class, run.run.seed)
        gallery = _divided(run, undivided_gallery(run.catalogue, references, options), references, options)
        config = build_config(run, network, gallery, val, step, options)
        target = write_checkpoint(
            target,
            config=config,
            weights=network.weights(),
            gallery=gallery.to_tensors(),
            subclasses=gallery.subclasses,
            dtype=options.dtype,
        )
    accelerator.wait_for_everyone()
    return target


def _divided(run: SavedRun, gallery: Gallery, references: Outputs, options: ExportOptions) -> Gallery:
    own = run.load_method().divide(references, run.run.seed) if options.subclasses == "method" else None
    if own is None:
        return divide_anew(gallery, options, seed=run.run.seed)
    if own.before is not None:
        gallery = gallery.with_subclasses(*_present(*own.before))
    return divide(gallery, own.found, chosen_by=own.chosen_by, columns=True)


def _present(ids: np.ndarray, document: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Subclasses without those that have no picture in a gallery with these ids."""
    entries = []
    for entry in document["classes"]:
        members = [member for member in entry["subclasses"] if (ids == member["id"]).any()]
        entries.append({**entry, "k": len(members), "subclasses": members})
    return ids, {**document, "classes": entries}


def build_config(
    run: SavedRun, network: Network, gallery: Gallery, val: Outputs | None, step: int, options: ExportOptions
) -> dict[str, Any]:
    """config.json, with the figures that validation and earlier `evaluate` calls gave."""
    catalogue = run.catalogue
    ours: dict[str, Any] = {
        "method": run.method,
        "options": {key: value for key, value in run.values.items() if key not in OF_THIS_MACHINE},
        "labels": "classes",
        "superclass_names": list(catalogue.superclass_names(run.level)),
        "preprocessing": run.preprocessing.to_dict(),
        "embedding": {"space": "pooled", "dim": network.encoder.dim, "metric": "cosine"},
        "novelty": _novelty(run, gallery, val),
        "training": {
            **data_facts(catalogue, run.level, run.run.seed),
            "superclasses": run.data.superclasses,
            "val_fraction": run.data.val_fraction,
            "test_fraction": run.data.test_fraction,
            "include_val": run.data.include_val,
            "epochs": run.optim.epochs,
            "step": step,
            "seconds": round(run_seconds(read_rows(run.folder / "metrics.jsonl"))),
            "command": run.command,
        },
        "metrics": _metrics(run.folder, val),
    }
    if options.title:
        ours["title"] = options.title
    if options.license:
        ours["license"] = options.license
    return {
        **run.network_config,
        "label_names": list(run.class_names),
        "fgdemo": {**run.network_config["fgdemo"], **ours},
    }


def _novelty(run: SavedRun, gallery: Gallery, val: Outputs | None) -> dict[str, Any] | None:
    """The flag as validation sets it, its own or that of the run that --novelty-from names.

    Rates that `evaluate` measured are taken in if they were measured with this threshold: another choice of gallery
    pictures moves it.
    """
    if val is not None:
        flag = novelty_flag(gallery.neighbours(val.embeddings.numpy(), 1)[1][:, 0])
    elif run.data.novelty_from:
        flag = borrowed_flag(Path(run.data.novelty_from), run.catalogue.name, run.values["encoder"])
    else:
        return None
    return {**flag, "measured": _measured_rates(run.folder, flag["threshold"])}


def _measured_rates(folder: Path, threshold: float) -> list[dict[str, Any]]:
    rates = []
    for result in _evaluations(folder).values():
        novelty = result.get("novelty")
        if novelty is None or not math.isclose(novelty["threshold"], threshold, rel_tol=1e-3):
            continue
        rates.append(
            {"data": f"{result['dataset']} {result['split']}", "flagged": novelty["flagged"], "n": novelty["n"]}
        )
        if "foreign" in novelty:
            name = f"{novelty['foreign']} test"
            rates.append({"data": name, "flagged": novelty["foreign_flagged"], "n": novelty["foreign_n"]})
    return rates


def _evaluations(folder: Path) -> dict[str, dict[str, Any]]:
    """What `evaluate` wrote into the run's folder, by split."""
    files = sorted((folder / "evaluation").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def _metrics(folder: Path, val: Outputs | None) -> list[dict[str, Any]]:
    figures = {} if val is None else {"val": classification_metrics(val.logits, val.labels)}
    figures |= {split: result["metrics"] for split, result in _evaluations(folder).items()}
    return metric_rows(figures)
