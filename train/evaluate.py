"""`python -m train evaluate RUN_OR_CHECKPOINT`: figures on one split, for people and for machines."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from fgdemo.checkpoint import Checkpoint, read_checkpoint
from fgdemo.checkpoint.hub import resolve
from fgdemo.data import Catalogue, ImageSplit, Preprocessing, eval_transform, load_catalogue
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery
from fgdemo.models import Network, build_from_config
from train.cli import build_parser, normalise_argv, split_namespace
from train.files import write_text
from train.inference import Outputs, run_split
from train.launch import make_accelerator
from train.metrics import classification_metrics, confusion_matrix, knn_predict, topk_correct
from train.options import RunOptions


@dataclass
class EvaluateOptions:
    """What to measure, on which pictures"""

    split: Literal["train", "val", "test"] = "test"
    """split to measure on; test is read by this command alone"""
    data_root: str | None = None
    """folder that holds the data set"""
    knn: int = 0
    """also classify by this many nearest pictures of the gallery; 0: not"""
    foreign: str | None = None
    """a data set of other things (scenes or digits): how many of its test pictures are flagged as unlike the gallery"""
    out: str | None = None
    """folder for the results; not given: evaluation/ in the run's folder, or runs/evaluation/NAME of a checkpoint"""
    batch_size: int = 64
    """pictures in one forward pass of one process"""
    workers: int = 2
    """processes that load pictures"""
    device: Literal["auto", "cpu"] = "auto"
    """auto: the accelerators that Accelerate finds, else the processor"""
    precision: Literal["auto", "no", "bf16", "fp16"] | None = None
    """mixed precision; auto: bf16 where the device computes in it"""
    threads: int | None = None
    """processor threads of each process"""
    strict: bool = False
    """stop at the first picture that cannot be read"""


def evaluate_command(argv: list[str]) -> None:
    """Parse, measure, write, print a table."""
    parser = build_parser("python -m train evaluate", "Measure a run or a checkpoint on one split.", (EvaluateOptions,))
    parser.add_argument("target", type=str, help="a run's folder, a checkpoint's folder, or a Hub id")
    values = parser.parse_args(normalise_argv(argv, (EvaluateOptions,)))
    (options,) = split_namespace(values, (EvaluateOptions,))
    accelerator = make_accelerator(
        RunOptions(device=options.device, precision=options.precision, threads=options.threads)
    )
    folder, checkpoint = open_target(values.target)
    out = Path(options.out) if options.out else folder
    network = load_network(checkpoint).to(accelerator.device)
    catalogue = catalogue_of(checkpoint, options.data_root)
    level = checkpoint.config["fgdemo"]["training"]["labels"]
    split = ImageSplit(
        catalogue, options.split, labels=level, transform=transform_of(checkpoint), strict=options.strict
    )
    check_classes(checkpoint, split)
    output = run_split(accelerator, network, split, batch_size=options.batch_size, workers=options.workers)
    gallery = Gallery.from_checkpoint(checkpoint)
    result = measure(checkpoint, gallery, catalogue, output, options)
    if options.foreign:
        result["novelty"] |= _foreign_rate(accelerator, network, checkpoint, gallery, options)
    if accelerator.is_main_process:
        _write(out, options.split, result, output, split.class_names)
        print(_table(values.target, result))
        print(f"written to {out}")


def open_target(target: str) -> tuple[Path, Checkpoint]:
    """The folder that results of `target` go to, and its checkpoint."""
    run = Path(target)
    if (run / "options.yaml").is_file():
        if not (run / "checkpoint").is_dir():
            raise UserError(f"{run} has no checkpoint yet: let the run end, or write one with: train export {run}.")
        return run / "evaluation", read_checkpoint(run / "checkpoint")
    path = resolve(target)
    return Path("runs") / "evaluation" / Path(target).name, read_checkpoint(path)


def load_network(checkpoint: Checkpoint) -> Network:
    """The checkpoint's network with its weights, in eval mode."""
    network = build_from_config(checkpoint.config)
    network.load_weights(checkpoint.weights())
    return network.eval()


def transform_of(checkpoint: Checkpoint) -> Any:
    return eval_transform(Preprocessing.from_dict(checkpoint.config["fgdemo"]["preprocessing"]))


def catalogue_of(checkpoint: Checkpoint, data_root: str | None) -> Catalogue:
    """The data set a checkpoint was trained on, split as it was then."""
    training = checkpoint.config["fgdemo"]["training"]
    return load_catalogue(
        training["dataset"],
        data_root,
        seed=training["seed"],
        superclasses=training.get("superclasses"),
        val_fraction=training.get("val_fraction"),
        test_fraction=training.get("test_fraction"),
    )


def check_classes(checkpoint: Checkpoint, split: ImageSplit) -> None:
    """Refuse data whose classes are not the checkpoint's, in the checkpoint's order."""
    names = tuple(checkpoint.config["label_names"])
    if names != tuple(split.class_names):
        differing = next(
            (f"'{a}' and '{b}'" for a, b in zip(names, split.class_names, strict=False) if a != b),
            f"{len(names)} and {len(split.class_names)} classes",
        )
        raise UserError(
            f"The classes of {split.catalogue.name} are not those of the checkpoint (first difference: {differing}): "
            "give the --data-root that it was trained on."
        )


def measure(
    checkpoint: Checkpoint, gallery: Gallery, catalogue: Catalogue, output: Outputs, options: EvaluateOptions
) -> dict[str, Any]:
    """All figures of one split that need no further pass."""
    result: dict[str, Any] = {
        "dataset": catalogue.name,
        "split": options.split,
        "unreadable": int((catalogue.split == options.split).sum()) - len(output.index),
        "metrics": classification_metrics(output.logits, output.labels),
    }
    if options.knn:
        labels = torch.from_numpy(gallery.class_id).long()
        scores = knn_predict(
            output.embeddings, torch.from_numpy(gallery.embeddings), labels, output.logits.shape[1], options.knn
        )
        result["knn"] = {"k": options.knn, "top1": float(topk_correct(scores, output.labels, 1).double().mean())}
    novelty = checkpoint.config["fgdemo"]["novelty"]
    if novelty is not None:
        rate = flagged(gallery, output.embeddings, novelty["threshold"])
        result["novelty"] = {"threshold": novelty["threshold"], "flagged": rate, "n": len(output.index)}
    return result


def flagged(gallery: Gallery, embeddings: Tensor, threshold: float) -> float:
    """Share of (N, D) embeddings whose nearest gallery picture is farther than `threshold` (cosine distance)."""
    _, distances = gallery.neighbours(embeddings.numpy(), 1)
    return float((distances[:, 0] > threshold).mean())


def _foreign_rate(
    accelerator: Accelerator, network: Network, checkpoint: Checkpoint, gallery: Gallery, options: EvaluateOptions
) -> dict[str, Any]:
    split = ImageSplit(load_catalogue(options.foreign or ""), "test", transform=transform_of(checkpoint))
    output = run_split(accelerator, network, split, batch_size=options.batch_size, workers=options.workers)
    threshold = checkpoint.config["fgdemo"]["novelty"]["threshold"]
    return {
        "foreign": options.foreign,
        "foreign_flagged": flagged(gallery, output.embeddings, threshold),
        "foreign_n": len(output.index),
    }


def _write(out: Path, split: str, result: dict[str, Any], output: Outputs, names: tuple[str, ...]) -> None:
    matrix = confusion_matrix(output.logits.argmax(1), output.labels, len(names))
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / f"{split}.json", json.dumps(result, indent=2) + "\n")
        safe = [spreadsheet_text(name) for name in names]
        totals, hits, predicted = matrix.sum(1).tolist(), matrix.diagonal().tolist(), matrix.sum(0).tolist()
        rows = [
            [name, n, hit, f"{hit / n:.4f}" if n else "", times]
            for name, n, hit, times in zip(safe, totals, hits, predicted, strict=True)
        ]
        _write_csv(out / f"{split}-classes.csv", ["class", "pictures", "correct", "accuracy", "predicted"], rows)
        table = [[name, *row] for name, row in zip(safe, matrix.tolist(), strict=True)]
        _write_csv(out / f"{split}-confusion.csv", ["actual / predicted", *safe], table)
    except OSError as error:
        raise UserError(f"Results cannot be written to {out} ({error.strerror}): choose another --out.") from error


def spreadsheet_text(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def _table(target: str, result: dict[str, Any]) -> str:
    m = result["metrics"]
    low, high = 100 * m["top1_low"], 100 * m["top1_high"]
    lines = [
        f"{target} on {result['dataset']} {result['split']}: {m['n']} pictures",
        f"  top-1        {100 * m['top1']:.2f} %  (95 % interval {low:.2f} to {high:.2f})",
        f"  top-5        {100 * m['top5']:.2f} %",
        f"  macro        {100 * m['macro']:.2f} %",
        f"  errors       {m['errors']} of {m['n']}",
        f"  NLL          {m['nll']:.4f}",
        f"  ECE          {m['ece']:.4f}",
    ]
    if result["unreadable"]:
        lines.append(f"  unreadable   {result['unreadable']} pictures, left out")
    if "knn" in result:
        lines.append(f"  {result['knn']['k']}-NN top-1   {100 * result['knn']['top1']:.2f} %")
    if "novelty" in result:
        novelty = result["novelty"]
        lines.append(f"  flagged as unlike the gallery: {100 * novelty['flagged']:.1f} % of {novelty['n']}")
        if "foreign" in novelty:
            lines.append(
                f"  and {100 * novelty['foreign_flagged']:.1f} % of {novelty['foreign_n']} pictures of "
                f"{novelty['foreign']}"
            )
    return "\n".join(lines)
