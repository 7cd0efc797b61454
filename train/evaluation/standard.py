"""The figures of every evaluation: accuracy, calibration, nearest neighbours, the novelty flag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fgdemo.data import ImageSplit, eval_transform, load_catalogue
from fgdemo.gallery import Gallery
from train.evaluation.outcomes import pack_bits
from train.evaluation.subject import Subject
from train.metrics import classification_metrics, knn_predict, topk_correct


@dataclass
class StandardOptions:
    """Beside accuracy and calibration"""

    knn: int = 0
    """also classify by this many nearest pictures of the gallery; 0: not"""
    foreign: str | None = None
    """a data set of other things (scenes or digits): how many of its test pictures are flagged as unlike the gallery"""


def measure(subject: Subject, options: StandardOptions) -> dict[str, Any]:
    """Figures of one split, for the sections `metrics`, `knn` and `novelty`, and the outcome of every picture."""
    output = subject.outputs(subject.split)
    catalogue, gallery = subject.catalogue, subject.gallery
    result: dict[str, Any] = {
        "dataset": catalogue.name,
        "labels": subject.level,
        "split": subject.split,
        "unreadable": int((catalogue.split == subject.split).sum()) - len(output.index),
        "metrics": classification_metrics(output.logits, output.labels),
        "outcomes": {"top1": pack_bits(topk_correct(output.logits, output.labels, 1).numpy())},
    }
    if options.knn:
        labels = torch.from_numpy(gallery.class_id).long()
        scores = knn_predict(
            output.embeddings, torch.from_numpy(gallery.embeddings), labels, output.logits.shape[1], options.knn
        )
        hits = topk_correct(scores, output.labels, 1)
        result["knn"] = {"k": options.knn, "top1": float(hits.double().mean())}
        result["outcomes"]["knn"] = pack_bits(hits.numpy())
    novelty = subject.ours["novelty"]
    if novelty is not None:
        threshold = novelty["threshold"]
        rate = flagged(gallery, output.embeddings, threshold)
        result["novelty"] = {"threshold": threshold, "flagged": rate, "n": len(output.index)}
        if options.foreign:
            result["novelty"] |= _foreign_rate(subject, options.foreign, threshold)
    return result


def flagged(gallery: Gallery, embeddings: Tensor, threshold: float) -> float:
    """Share of (N, D) embeddings whose nearest gallery picture is farther than `threshold` (cosine distance)."""
    _, distances = gallery.neighbours(embeddings.numpy(), 1)
    return float((distances[:, 0] > threshold).mean())


def lines(result: dict[str, Any]) -> list[str]:
    """The table for people."""
    m = result["metrics"]
    low, high = 100 * m["top1_low"], 100 * m["top1_high"]
    rows = [
        f"  top-1        {100 * m['top1']:.2f} %  (95 % interval {low:.2f} to {high:.2f})",
        f"  top-5        {100 * m['top5']:.2f} %",
        f"  macro        {100 * m['macro']:.2f} %",
        f"  errors       {m['errors']} of {m['n']}",
        f"  NLL          {m['nll']:.4f}",
        f"  ECE          {m['ece']:.4f}",
    ]
    if result["unreadable"]:
        rows.append(f"  unreadable   {result['unreadable']} pictures, left out")
    if "knn" in result:
        rows.append(f"  {result['knn']['k']}-NN top-1   {100 * result['knn']['top1']:.2f} %")
    if "novelty" in result:
        novelty = result["novelty"]
        rows.append(f"  flagged as unlike the gallery: {100 * novelty['flagged']:.1f} % of {novelty['n']}")
        if "foreign" in novelty:
            rows.append(
                f"  and {100 * novelty['foreign_flagged']:.1f} % of {novelty['foreign_n']} pictures of "
                f"{novelty['foreign']}"
            )
    return rows


def _foreign_rate(subject: Subject, foreign: str, threshold: float) -> dict[str, Any]:
    split = ImageSplit(load_catalogue(foreign), "test", transform=eval_transform(subject.preprocessing))
    output = subject.encode(split)
    return {
        "foreign": foreign,
        "foreign_flagged": flagged(subject.gallery, output.embeddings, threshold),
        "foreign_n": len(output.index),
    }
