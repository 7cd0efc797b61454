"""Faithfulness of the explanation that the app shows: deletion and insertion curves beside those of other orders."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fgdemo.data import keyed_permutation, keyed_seed
from fgdemo.errors import UserError
from fgdemo.explain.curves import Curves, area_under, deletion_insertion, lattice_order, order_by
from fgdemo.explain.explanation import explain
from fgdemo.models import Network
from fgdemo.models.field import field_shift
from train.evaluation.ruler import Ruler
from train.evaluation.subject import Subject
from train.launch import leave_signals_to_parent
from train.statistics import paired_difference

_BLUR = 1 / 8
"""Standard deviation of the blur in shorter sides of the network's input."""
OURS = "explanation"


@dataclass
class FaithfulnessOptions:
    """Faithfulness of explanations"""

    faithfulness: bool = False
    """deletion and insertion curves of the explanation beside random, grid and mean attention orders"""
    faithful_pictures: int = 200
    """pictures of the split to explain, of each class in proportion"""
    faithful_steps: int = 16
    """steps of a curve, at most one for each cell of the explanation"""
    faithful_fill: Literal["blur", "mean"] = "blur"
    """what shows in the place of a cell: the picture blurred over an eighth of its shorter side, or its mean colour"""
    faithful_draws: int = 3
    """random orders of each picture; their curves are averaged"""
    faithful_seed: int = 0
    """draws the pictures and the random orders"""

    def __post_init__(self) -> None:
        for name in ("faithful_pictures", "faithful_steps", "faithful_draws"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}.")


class Measured(NamedTuple):
    """Curves of N pictures over a grid (h, w) by the name of the order, (N, P) float64; random orders averaged."""

    grid: tuple[int, int]
    shares: np.ndarray
    deletion: dict[str, np.ndarray]
    insertion: dict[str, np.ndarray]


def measure(subject: Subject, options: FaithfulnessOptions) -> dict[str, Any]:
    """Areas and mean curves of every order, and paired differences of the explanation to each control over pictures.

    The intervals speak of the pictures of this one network; over training runs the seed is the unit. Every process
    computes the same: a few hundred pictures are not worth sharing out.

    Raises:
        UserError: a network with nothing to explain.
    """
    output = subject.outputs(subject.split)
    chosen = stratified_sample(output.labels.numpy(), options.faithful_pictures, options.faithful_seed)
    curves = _curves(subject, output.index.numpy()[chosen], output.logits[chosen].argmax(1), options)
    areas = {
        name: {
            "deletion": area_under(curves.deletion[name], curves.shares),
            "insertion": area_under(curves.insertion[name], curves.shares),
        }
        for name in curves.deletion
    }
    encoder = subject.network.encoder
    return {
        "n": len(chosen),
        "map": "scores" if encoder.has_class_rows else "activation",
        "grid": list(curves.grid),
        "fill": options.faithful_fill,
        "blur": _BLUR * min(encoder.input_size) if options.faithful_fill == "blur" else None,
        "draws": options.faithful_draws,
        "seed": options.faithful_seed,
        "intact": float(curves.deletion[OURS][:, 0].mean()),
        "filled": float(curves.deletion[OURS][:, -1].mean()),
        "shares": curves.shares.tolist(),
        "orders": {
            name: {
                **{way: float(area.mean()) for way, area in both.items()},
                "deletion_curve": curves.deletion[name].mean(0).tolist(),
                "insertion_curve": curves.insertion[name].mean(0).tolist(),
            }
            for name, both in areas.items()
        },
        "differences": {
            name: {way: asdict(paired_difference(areas[OURS][way], area)) for way, area in both.items()}
            for name, both in areas.items()
            if name != OURS
        },
    }


def stratified_sample(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most `count` positions of (N,) labels, ascending, each class in proportion up to one picture.

    A systematic sample: positions ordered by class, at random inside it, of which every N / count-th is taken.
    """
    n = len(labels)
    if count >= n:
        return np.arange(n)
    by_class = np.lexsort((keyed_permutation(n, "faithful pictures", seed), labels))
    offset = np.random.default_rng(keyed_seed("faithful offset", seed)).random()
    return np.sort(by_class[((np.arange(count) + offset) * n / count).astype(np.int64)])


def fill_of(images: Tensor, how: str) -> Tensor:
    """(B, 3, H, W) of what shows in the place of cells: the picture out of focus, or all of its mean colour."""
    if how == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    from scipy.ndimage import gaussian_filter

    sigma = _BLUR * min(images.shape[-2:])
    return torch.from_numpy(gaussian_filter(images.cpu().numpy(), (0, 0, sigma, sigma), mode="nearest"))


def orders_of(
    network: Network, images: Tensor, index: list[int], classes: list[int], options: FaithfulnessOptions
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Orders (B, O, h w) of the cells of B pictures with their dataset indices, O under each name; the grid (h, w).

    One picture at a time, as the app explains them: that is one pass for each, where their curves take hundreds.
    """
    height, width = images.shape[-2:]
    named: dict[str, list[np.ndarray]] = defaultdict(list)
    for image, row, target in zip(images, index, classes, strict=True):
        found = explain(network, image, (0, 0, width, height), target=target)
        cells = found.grid[0] * found.grid[1]
        ties = keyed_permutation(cells, "faithful ties", options.faithful_seed, row)
        if found.kind == "votes":
            named[OURS].append(order_by(found.select(what="scores").map, ties)[None])
            named["attention"].append(order_by(found.select(what="attention").map, ties)[None])
        else:
            # Drawn with negative contributions as zero: the same order, and one among those as well.
            named[OURS].append(order_by(found.activation.contributions, ties)[None])
        named["grid"].append(lattice_order(found.grid)[None])
        draws = range(options.faithful_draws)
        key = ("faithful order", options.faithful_seed, row)
        named["random"].append(np.stack([keyed_permutation(cells, *key, draw) for draw in draws]))
    return {name: np.stack(orders) for name, orders in named.items()}, found.grid


def lines(result: dict[str, Any]) -> list[str]:
    """The table for people."""
    shown = "enhanced votes" if result["map"] == "scores" else "class activation"
    rows = [
        f"  faithfulness of {shown}, {result['n']} pictures; filled: {result['fill']}; probability of the predicted "
        f"class {result['intact']:.3f} intact, {result['filled']:.3f} filled",
        "    lower deletion and higher insertion are more faithful; explanation minus control, 95 % over pictures:",
        f"    {'order':<12} {'deletion':>8} {'insertion':>9}",
    ]
    for name, order in result["orders"].items():
        row = f"    {name:<12} {order['deletion']:>8.3f} {order['insertion']:>9.3f}"
        if name in result["differences"]:
            row += "".join(f"   {way} {_said(gap)}" for way, gap in result["differences"][name].items())
        rows.append(row)
    return rows


def _said(gap: dict[str, Any]) -> str:
    interval = "" if gap["low"] is None else f" ({gap['low']:+.3f} to {gap['high']:+.3f})"
    return f"{gap['mean']:+.3f}{interval}"


def _curves(subject: Subject, index: np.ndarray, targets: Tensor, options: FaithfulnessOptions) -> Measured:
    """Of the pictures with these dataset indices; in memory are one batch of them and one of masked ones."""
    split = subject.images(subject.split)
    loader = DataLoader(
        Subset(split, np.searchsorted(split.rows, index).tolist()),
        batch_size=subject.batch_size,
        num_workers=subject.workers,
        worker_init_fn=leave_signals_to_parent,
        generator=torch.Generator(),
    )
    device, encoder = subject.accelerator.device, subject.network.encoder
    parts: list[Curves] = []
    for sample, classes in zip(loader, targets.split(subject.batch_size), strict=True):
        images = sample.image.to(device)
        named, grid = orders_of(subject.network.eval(), images, sample.index.tolist(), classes.tolist(), options)
        parts.append(
            deletion_insertion(
                lambda pictures, of: _probability(subject, pictures, of),
                images,
                fill_of(sample.image, options.faithful_fill).to(device),
                classes.to(device),
                np.concatenate(list(named.values()), axis=1),
                grid,
                steps=options.faithful_steps,
                batch_size=subject.batch_size,
                # The cells as they are drawn: votes lie where the tokens read.
                shift=field_shift(encoder.net) if encoder.has_class_rows else (0.0, 0.0),
            )
        )
    ends = np.cumsum([orders.shape[1] for orders in named.values()])[:-1]
    deletion, insertion = (
        {name: curves.mean(1) for name, curves in zip(named, np.split(np.concatenate(way), ends, axis=1), strict=True)}
        for way in ([part.deletion for part in parts], [part.insertion for part in parts])
    )
    return Measured(grid, parts[0].shares, deletion, insertion)


def _probability(subject: Subject, pictures: Tensor, classes: Tensor) -> Tensor:
    """(n, 3, H, W) and (n,) classes -> (n,) float32, in the precision of every other pass."""
    with subject.accelerator.autocast():
        logits = subject.network(pictures).logits
    return logits.float().softmax(dim=1).gather(1, classes[:, None])[:, 0]


RULER = Ruler("faithfulness", FaithfulnessOptions, measure, lines)
