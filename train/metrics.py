"""Classification figures from logits and targets, each one a function of plain tensors."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgdemo.models.neighbour_votes import CHUNK, log_votes, neighbourhood


def topk_correct(logits: Tensor, targets: Tensor, k: int) -> Tensor:
    """Whether each target is among the k largest logits, (N,) bool; k is capped at the number of classes."""
    k = min(k, logits.shape[1])
    return (logits.topk(k, dim=1).indices == targets[:, None]).any(dim=1)


def expected_calibration_error(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width confidence bins, weighted by bin size.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    correct = (predicted == targets).double()
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    zeros = torch.zeros(bins, dtype=torch.float64)
    confidence_sum = zeros.scatter_add(0, index, confidence.double())
    correct_sum = zeros.scatter_add(0, index, correct)
    return float((confidence_sum - correct_sum).abs().sum() / len(targets))


def wilson_interval(successes: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a proportion (95 % by default), as fractions."""
    if total == 0:
        return 0.0, 1.0
    p = successes / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    # At 0 and at `total` successes one end is exactly 0 or 1; rounding must not move it inside.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == total else centre + half
    return low, high


def confusion_matrix(predicted: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Counts (C, C) int64: rows are true classes, columns predicted ones."""
    flat = targets * num_classes + predicted
    return torch.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def classification_metrics(logits: Tensor, targets: Tensor) -> dict[str, Any]:
    """Top-1, top-5, macro accuracy, NLL, ECE and errors with their Wilson interval.

    Args:
        logits: (N, C) float.
        targets: (N,) int64.

    Returns:
        Fractions in [0, 1] under top1, top5, macro, ece; nats under nll; counts under errors and n. The macro
        accuracy is the mean over the classes that occur in `targets`.
    """
    logits, targets = logits.double().cpu(), targets.long().cpu()
    n, num_classes = logits.shape
    correct = topk_correct(logits, targets, 1)
    per_class = torch.bincount(targets, minlength=num_classes)
    hits = torch.bincount(targets[correct], minlength=num_classes)
    present = per_class > 0
    hit_count = int(correct.sum())
    low, high = wilson_interval(hit_count, n)
    return {
        "top1": hit_count / n,
        "top5": float(topk_correct(logits, targets, 5).double().mean()),
        "macro": float((hits[present].double() / per_class[present]).mean()),
        "nll": float(F.cross_entropy(logits, targets)),
        "ece": expected_calibration_error(logits, targets),
        "errors": n - hit_count,
        "n": n,
        "top1_low": low,
        "top1_high": high,
    }


def knn_predict(
    queries: Tensor, gallery: Tensor, labels: Tensor, num_classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Share of each class (M, C) in the votes of the nearest neighbours, by cosine similarity.

    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, section 3.4; see
    fgdemo/models/neighbour_votes.py.

    Args:
        queries: (M, D); gallery: (N, D); labels: (N,) int64 class ids of the gallery.
    """
    k = min(k, len(gallery))
    gallery = F.normalize(gallery.float(), dim=1)
    # Blocks of queries bound every matrix at about 64 MB whatever the gallery.
    block = max(1, 16_000_000 // max(min(len(gallery), CHUNK), num_classes))
    parts = (neighbourhood(part, gallery, labels, num_classes, k) for part in queries.split(block))
    return torch.cat([log_votes(near, k, temperature).softmax(dim=1) for near in parts])
