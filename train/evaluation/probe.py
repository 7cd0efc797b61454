"""A linear probe: how much of each level of the hierarchy a linear classifier reads off the frozen embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fgdemo.data.splits import stratified_holdout
from train.evaluation.logistic import LogisticFit, fit_logistic, float64_device
from train.evaluation.outcomes import pack_bits
from train.evaluation.ruler import Ruler
from train.evaluation.subject import Subject
from train.metrics import wilson_interval

GRID = tuple(10.0**power for power in range(-4, 5))
"""Inverse strengths of the penalty to choose from."""

TOLERANCE = 1e-5
"""Norm of the gradient at the end, relative to that at zero weights."""

HELD_OUT = 0.2
"""Share of train that C is chosen on where the data set has no validation split."""


@dataclass
class ProbeOptions:
    """Linear probe of the frozen embeddings"""

    probe: bool = False
    """fit multinomial logistic regression on train, choose its penalty on validation, and score it on the split"""
    probe_norm: bool = True
    """bring embeddings to unit norm"""


def measure(subject: Subject, options: ProbeOptions) -> dict[str, Any]:
    """Top-1 at each level of the hierarchy with its Wilson interval, and the outcome of every picture."""
    catalogue, device = subject.catalogue, float64_device(subject.accelerator.device)
    has_val = len(catalogue.rows("val")) > 0
    features, index = {}, {}
    # The split that is scored may be one of the two others. Processes must go through them in the same order.
    for split in dict.fromkeys(["train", *(["val"] if has_val else []), subject.split]):
        output = subject.outputs(split)
        features[split] = output.embeddings.to(device)
        if options.probe_norm:
            features[split] = F.normalize(features[split], dim=-1)
        index[split] = output.index.numpy()
    levels: dict[str, Any] = {}
    outcomes: dict[str, Any] = {}
    for level in ("fine",) if catalogue.hierarchy.is_flat else ("fine", "coarse"):
        targets, classes = catalogue.targets(level), len(catalogue.class_names(level))
        y = {split: torch.from_numpy(targets[rows]).to(device) for split, rows in index.items()}
        if has_val:
            fit, C = _choose(features["train"], y["train"], features["val"], y["val"], classes)
        else:
            held = stratified_holdout(targets[index["train"]], HELD_OUT, seed=0)
            kept, held = torch.from_numpy(~held).to(device), torch.from_numpy(held).to(device)
            x = features["train"]
            _, C = _choose(x[kept], y["train"][kept], x[held], y["train"][held], classes)
            fit = fit_logistic(x, y["train"], classes, C=C, tol=TOLERANCE)
        hits = (fit.predict(features[subject.split])[0] == y[subject.split]).cpu().numpy()
        low, high = wilson_interval(int(hits.sum()), len(hits))
        levels[level] = {
            "top1": float(np.mean(hits)),
            "top1_low": low,
            "top1_high": high,
            "n": len(hits),
            "classes": classes,
            "C": C,
            "converged": bool(fit.converged[0]),
        }
        outcomes[f"probe/levels/{level}/top1"] = pack_bits(hits)
    return {
        "feature": f"{subject.ours['embedding']['space']} embedding",
        "dim": features["train"].shape[1],
        "options": {"probe_norm": options.probe_norm},
        "scored_on": subject.split,
        "chosen_on": "val" if has_val else f"{HELD_OUT:g} of train",
        "levels": levels,
        "outcomes": outcomes,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The table for people."""
    norm = " of unit norm" if result["options"]["probe_norm"] else ""
    caution = {"train": ", the pictures it was fitted to", "val": ", the pictures C was chosen on"}
    if result["chosen_on"] != "val":
        caution.pop("val")
    rows = [
        f"  linear probe of the {result['feature']} ({result['dim']} dimensions){norm}: fitted to train, "
        f"C chosen on {result['chosen_on']}",
        f"    scored on {result['scored_on']}{caution.get(result['scored_on'], '')}",
    ]
    for level, figures in result["levels"].items():
        low, high = 100 * figures["top1_low"], 100 * figures["top1_high"]
        rows.append(
            f"    {level:<7} {100 * figures['top1']:.2f} %  (95 % interval {low:.2f} to {high:.2f}; "
            f"{figures['classes']} classes, C = {figures['C']:g})"
        )
        if not figures["converged"]:
            rows.append(f"    {level:<7} the fit did not converge")
    return rows


def _choose(x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor, classes: int) -> tuple[LogisticFit, float]:
    """The fit to (N, D) rows whose C is best on validation; of equals the one with the strongest penalty."""
    strengths = torch.tensor(GRID, dtype=torch.float64, device=x.device)
    fits = fit_logistic(x, y, classes, C=strengths, tol=TOLERANCE)
    accuracy = (fits.predict(x_val) == y_val).double().mean(1)
    best = int(accuracy.argmax())
    return fits.take(best), GRID[best]


RULER = Ruler("probe", ProbeOptions, measure, lines)
