"""From a run's folder to a checkpoint: weights, gallery, subclasses, figures, card."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator

from fgdemo.checkpoint import write_checkpoint
from fgdemo.data import ImageSplit, encode_thumbnail, eval_transform
from fgdemo.gallery import TRAIN, Gallery
from fgdemo.models import Network
from fgdemo.recluster import recluster
from train.cli import build_parser, normalise_argv, split_namespace
from train.inference import Outputs, run_split
from train.launch import make_accelerator
from train.metrics import classification_metrics
from train.options import RunOptions
from train.saved_run import SavedRun
from train.tracking import read_rows

# Share of validation pictures that the "unlike anything in the gallery" flag may raise a false alarm on.
FALSE_ALARMS = 0.05


@dataclass
class ExportOptions:
    """What goes into the checkpoint"""

    out: str | None = None
    """folder of the checkpoint; not given: checkpoint/ in the run's folder; a taken name gets a sibling NAME-v2"""
    title: str | None = None
    """what the model picker calls it"""
    license: str | None = None
    """licence of the checkpoint as the Hub spells it, for example apache-2.0"""
    dtype: Literal["float32", "float16"] = "float32"
    """how the weights are stored"""
    weights: Literal["best", "last"] = "best"
    """the epoch that was best on validation, or the last one"""
    per_class: int = 0
    """gallery pictures of each class, a seeded choice; 0: all training pictures"""
    thumbnails: int = 64
    """longer side of the thumbnails in pixels; 0: none. Data sets that may not be passed on get none"""
    choose_k: Literal["silhouette", "bic", "stability"] = "silhouette"
    """how the number of subclasses of a class is chosen"""
    max_k: int = 12
    """most subclasses of one class"""
    data_root: str | None = None
    """folder that holds the data set; not given: where it was during training"""
    batch_size: int = 64
    """pictures in one forward pass of one process"""
    workers: int = 2
    """processes that load pictures"""
    device: Literal["auto", "cpu"] = "auto"
    """auto: the accelerators that Accelerate finds, else the processor"""
    threads: int | None = None
    """processor threads of each process"""


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
    transform = eval_transform(run.preprocessing)
    outputs: dict[str, Outputs] = {}
    for name in ("train", "val"):
        if len(run.catalogue.rows(name)):
            split = ImageSplit(run.catalogue, name, labels=run.data.labels, transform=transform)
            # What the gallery is compared with later comes in full precision, whatever the training's was.
            outputs[name] = run_split(
                accelerator,
                network,
                split,
                batch_size=options.batch_size,
                workers=options.workers,
                full_precision=True,
            )
    target = Path(options.out) if options.out else folder / "checkpoint"
    if accelerator.is_main_process:
        gallery = build_gallery(run, outputs["train"], options)
        config = build_config(run, network, gallery, outputs.get("val"), step, options)
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


def build_gallery(run: SavedRun, train: Outputs, options: ExportOptions) -> Gallery:
    """Reference pictures of the training split, each class divided into subclasses."""
    rows = np.arange(len(train.index))
    if options.per_class:
        rows = _seeded_choice(train.labels.numpy(), options.per_class, run.run.seed)
    index = train.index.numpy()[rows]
    class_id = train.labels.numpy()[rows]
    thumbnails = None
    if options.thumbnails and run.catalogue.publishable:
        thumbnails = [encode_thumbnail(run.catalogue.reader(int(i)), options.thumbnails) for i in index]
    gallery = Gallery.build(
        train.embeddings[torch.from_numpy(rows)],
        class_id=class_id,
        split=np.full(len(rows), TRAIN),
        keys=[str(key) for key in run.catalogue.keys[index]],
        thumbnails=thumbnails,
        subclass_id=np.full(len(rows), -1),
        subclasses={},
    )
    return recluster(gallery, criterion=options.choose_k, max_k=options.max_k, seed=run.run.seed).gallery


def build_config(
    run: SavedRun, network: Network, gallery: Gallery, val: Outputs | None, step: int, options: ExportOptions
) -> dict[str, Any]:
    """config.json, with the figures that validation and earlier `evaluate` calls gave."""
    catalogue = run.catalogue
    ours: dict[str, Any] = {
        "method": run.method,
        "options": {key: value for key, value in run.values.items() if key not in ("data_root", "output")},
        "labels": "classes",
        "superclass_names": list(catalogue.superclass_names(run.level)),
        "preprocessing": run.preprocessing.to_dict(),
        "embedding": {"space": "pooled", "dim": network.encoder.dim, "metric": "cosine"},
        "novelty": _novelty(run.folder, gallery, val),
        "training": {
            "dataset": catalogue.name,
            "labels": run.level,
            "superclasses": run.data.superclasses,
            "val_fraction": run.data.val_fraction,
            "test_fraction": run.data.test_fraction,
            "seed": run.run.seed,
            "samples": len(catalogue.rows("train")),
            "epochs": run.optim.epochs,
            "step": step,
            "seconds": round(sum(_epoch_seconds(run.folder))),
            "command": run.command,
            "source": catalogue.source,
            "licence": catalogue.licence,
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


def _novelty(folder: Path, gallery: Gallery, val: Outputs | None) -> dict[str, Any] | None:
    """The distance to the nearest gallery picture that only FALSE_ALARMS of the validation pictures exceed.

    Rates that `evaluate` measured are taken in if they were measured with this threshold: another choice of gallery
    pictures moves it.
    """
    if val is None:
        return None
    _, distances = gallery.neighbours(val.embeddings.numpy(), 1)
    threshold = float(np.quantile(distances[:, 0], 1 - FALSE_ALARMS))
    return {
        "score": "cosine distance to the nearest gallery picture",
        "threshold": threshold,
        "quantile": 1 - FALSE_ALARMS,
        "n": len(distances),
        "measured": _measured_rates(folder, threshold),
    }


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
    results: dict[str, dict[str, Any]] = {}
    if val is not None:
        results["val"] = {"metrics": classification_metrics(val.logits, val.labels)}
    results.update(_evaluations(folder))
    rows = []
    for split, result in results.items():
        figures = result["metrics"]
        named = {name: figures[name] for name in ("top1", "top5", "macro", "nll", "ece")}
        rows += [{"split": split, "name": name, "value": value, "n": figures["n"]} for name, value in named.items()]
    return rows


def _epoch_seconds(folder: Path) -> list[float]:
    """Seconds of every part of the run: its clock starts again at 0 whenever it is resumed."""
    seconds = [row["seconds"] for row in read_rows(folder / "metrics.jsonl")]
    return [now for now, then in zip(seconds, [*seconds[1:], 0.0], strict=True) if then < now]


def _seeded_choice(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Ascending rows, at most `per_class` of each label."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[rank < per_class])
