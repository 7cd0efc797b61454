"""What a method has to beat: features that nobody trained, and those of plain training on the way.

Training on coarse labels can destroy the variation inside a class, so the picture's own pixels, its colours, and the
same network before and during plain training are the controls of every claim about subclasses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from fgdemo.data import Preprocessing, eval_transform
from fgdemo.errors import UserError
from fgdemo.models import Network, build_from_config
from train.evaluation.subject import Subject
from train.launch import leave_signals_to_parent
from train.saved_run import SavedRun

PIXELS = 32
"""Side of the pictures whose pixels are a control."""

BINS = 8
"""Bins of each colour channel of the histogram."""


class Features(NamedTuple):
    """Features of the training and the held-out pictures, rows in the order of the subject's outputs.

    Attributes:
        name: as a table shows it.
        train: (N, D) float32.
        held: (M, D) float32.
    """

    name: str
    train: Tensor
    held: Tensor


def embeddings(name: str, subject: Subject, network: Network, preprocessing: Preprocessing | None = None) -> Features:
    """Unit-norm embeddings by a network, each picture prepared as that network wants it."""
    transform = eval_transform(preprocessing or subject.preprocessing)
    network = network.to(subject.accelerator.device).eval()
    pair = (subject.encode(subject.images(split, transform), network) for split in ("train", subject.split))
    return Features(name, *(F.normalize(output.embeddings) for output in pair))


def own_embeddings(name: str, subject: Subject) -> Features:
    """Unit-norm embeddings by the network under evaluation."""
    return Features(name, *(F.normalize(subject.outputs(split).embeddings) for split in ("train", subject.split)))


def untrained(subject: Subject) -> Network:
    """The subject's network with random weights, drawn by the seed of its training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.seed)
        return build_from_config(subject.checkpoint.config)


def kept_epochs(run: Path, data_root: str | None) -> Iterator[tuple[str, Network, Preprocessing]]:
    """The weights that a run kept on its way (`--snapshot-every`), in order of epochs, with a name for each.

    Raises:
        UserError: it kept none, or it is no run's folder.
    """
    saved = SavedRun.open(run, data_root)
    epochs = saved.epochs()
    if not epochs:
        raise UserError(f"{run} kept no weights of its epochs: train it with --snapshot-every 10.")
    for epoch, path in epochs:
        name = f"{saved.method}, epoch {epoch}" if epoch else "untrained encoder"
        yield name, saved.load_epoch(path), saved.preprocessing


def raw_features(subject: Subject) -> tuple[Features, Features]:
    """Pixels at `PIXELS` x `PIXELS` (N, 3 * PIXELS**2) in 0..1, and the colour histogram (N, BINS**3).

    Both see the part of the picture that the network sees. The histogram is joint over the three channels, its counts
    replaced by the square roots of their shares, so that Euclidean distance is Hellinger's.
    """
    height, width = 2 * PIXELS, 2 * PIXELS
    plain = replace(subject.preprocessing, input_size=(3, height, width), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    pixels, colours = [], []
    for split in ("train", subject.split):
        output = subject.outputs(split)
        images = subject.images(split, eval_transform(plain))
        loader = DataLoader(
            images,
            batch_size=subject.batch_size,
            num_workers=subject.workers,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),
        )
        parts = [
            (sample.index, F.avg_pool2d(sample.image, 2).flatten(1), colour_histogram(sample.image))
            for sample in loader
        ]
        index, small, histogram = (torch.cat(column) for column in zip(*parts, strict=True))
        # An unreadable picture was replaced by another one, and is missing in the outputs.
        kept = index == torch.from_numpy(images.rows)
        kept &= torch.isin(index, output.index)
        pixels.append(small[kept])
        colours.append(histogram[kept])
    return Features("raw pixels", *pixels), Features("colour histogram", *colours)


def colour_histogram(images: Tensor) -> Tensor:
    """Square roots of the shares of the joint colour bins: (B, 3, H, W) in 0..1 -> (B, BINS**3) of unit norm."""
    level = (images * BINS).long().clamp(0, BINS - 1).flatten(2)
    code = (level[:, 0] * BINS + level[:, 1]) * BINS + level[:, 2]
    counts = torch.zeros(len(images), BINS**3).scatter_add_(1, code, torch.ones(code.shape))
    return (counts / code.shape[1]).sqrt()
