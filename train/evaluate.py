"""`python -m train evaluate RUN_OR_CHECKPOINT`: figures on one split, for people and for machines."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fgdemo.data import Catalogue, load_training_catalogue
from fgdemo.errors import UserError
from train.cli import build_parser, normalise_argv, split_namespace
from train.evaluation import RULERS, Subject, standard
from train.evaluation.standard import StandardOptions
from train.evaluation.subject import check_classes, load_network, open_target
from train.files import write_text
from train.launch import make_accelerator
from train.metrics import confusion_matrix
from train.options import RunOptions
from train.saved_run import open_where_trained, saved_data_root


@dataclass
class EvaluateOptions:
    """What to measure on, and how"""

    split: Literal["train", "val", "test"] = "test"
    """split to measure on; test is read by this command alone"""
    data_root: str | None = None
    """folder that holds the data set; not given: where a run's lay during training"""
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


GROUPS = (EvaluateOptions, StandardOptions, *(ruler.Options for ruler in RULERS))


def evaluate_command(argv: list[str]) -> None:
    """Parse, measure, write, print a table."""
    parser = build_parser("python -m train evaluate", "Measure a run or a checkpoint on one split.", GROUPS)
    parser.add_argument("target", type=str, help="a run's folder, a checkpoint's folder, or a Hub id")
    values = parser.parse_args(normalise_argv(argv, GROUPS))
    options, plain, *others = split_namespace(values, GROUPS)
    subject = _open(values.target, options)
    result = {"sha256": subject.checkpoint.config["fgdemo"]["sha256"], **standard.measure(subject, plain)}
    for ruler, own in zip(RULERS, others, strict=True):
        if getattr(own, ruler.name):
            result[ruler.name], outcomes = ruler.section(subject, own)
            result["outcomes"] |= outcomes
    if subject.accelerator.is_main_process:
        name = Path(values.target).name
        default = subject.run / "evaluation" if subject.run else Path("runs") / "evaluation" / name
        out = Path(options.out) if options.out else default
        _write(out, subject, result)
        print(_table(values.target, result))
        print(f"written to {out}")


def _open(target: str, options: EvaluateOptions) -> Subject:
    accelerator = make_accelerator(
        RunOptions(device=options.device, precision=options.precision, threads=options.threads)
    )
    run, checkpoint = open_target(target)
    subject = Subject(
        target=target,
        split=options.split,
        run=run,
        accelerator=accelerator,
        checkpoint=checkpoint,
        network=load_network(checkpoint).to(accelerator.device),
        catalogue=_open_catalogue(run, checkpoint.config["fgdemo"]["training"], options.data_root),
        batch_size=options.batch_size,
        workers=options.workers,
        strict=options.strict,
    )
    check_classes(checkpoint, subject.images(options.split))
    return subject


def _open_catalogue(run: Path | None, training: dict[str, Any], given: str | None) -> Catalogue:
    if given or run is None:
        return load_training_catalogue(training, given)
    saved = saved_data_root(run)
    return open_where_trained(run, saved, partial(load_training_catalogue, training, saved))


def _write(out: Path, subject: Subject, result: dict[str, Any]) -> None:
    """The JSON, keeping what earlier calls measured of the same checkpoint, and the tables of classes."""
    output, names = subject.outputs(subject.split), subject.checkpoint.config["label_names"]
    matrix = confusion_matrix(output.logits.argmax(1), output.labels, len(names))
    try:
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{subject.split}.json"
        write_text(path, json.dumps(_merged(path, result), indent=2) + "\n")
        safe = [spreadsheet_text(name) for name in names]
        totals, hits, predicted = matrix.sum(1).tolist(), matrix.diagonal().tolist(), matrix.sum(0).tolist()
        rows = [
            [name, n, hit, f"{hit / n:.4f}" if n else "", times]
            for name, n, hit, times in zip(safe, totals, hits, predicted, strict=True)
        ]
        header = ["class", "pictures", "correct", "accuracy", "predicted"]
        _write_csv(out / f"{subject.split}-classes.csv", header, rows)
        table = [[name, *row] for name, row in zip(safe, matrix.tolist(), strict=True)]
        _write_csv(out / f"{subject.split}-confusion.csv", ["actual / predicted", *safe], table)
    except OSError as error:
        raise UserError(f"Results cannot be written to {out} ({error.strerror}): choose another --out.") from error


def _merged(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        same = earlier["sha256"] == result["sha256"] and "outcomes" in earlier
    except (OSError, ValueError, KeyError, TypeError):
        return result
    if not same:
        return result
    both = [r.name for r in RULERS if r.setting is not None and r.name in earlier and r.name in result]
    side_by_side = {name: {**earlier[name], **result[name]} for name in ("outcomes", *both)}
    return {**earlier, **result, **side_by_side}


def spreadsheet_text(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def _table(target: str, result: dict[str, Any]) -> str:
    lines = [f"{target} on {result['dataset']} {result['split']}: {result['metrics']['n']} pictures"]
    lines += standard.lines(result)
    for ruler in RULERS:
        if ruler.name in result:
            lines += ruler.table(result[ruler.name])
    return "\n".join(lines)
