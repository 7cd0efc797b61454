"""What every command that writes a checkpoint needs: its options, outputs of a split, the gallery, figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator

from fgdemo.data import Catalogue, ImageSplit, Preprocessing, encode_thumbnail, eval_transform
from fgdemo.gallery import TRAIN, Gallery
from fgdemo.models import Network
from fgdemo.recluster import recluster
from train.inference import Outputs, run_split

Rule = Literal[
    "principal-gap",
    "silhouette",
    "exact-silhouette",
    "bic",
    "stability",
    "gap",
    "prediction-strength",
    "cosine-index",
    "cosine-index-as-published",
]
FIGURES = ("top1", "top5", "macro", "nll", "ece")


@dataclass
class CheckpointOptions:
    """What goes into the checkpoint"""

    out: str | None = None
    """folder of the checkpoint; a taken name gets a sibling NAME-v2"""
    title: str | None = None
    """what the model picker calls it"""
    license: str | None = None
    """licence of the checkpoint as the Hub spells it, for example apache-2.0"""
    dtype: Literal["float32", "float16"] = "float32"
    """how the weights are stored"""
    gallery_per_class: int = 0
    """gallery pictures of each class, a seeded choice; 0: all training pictures"""
    thumbnails: int = 64
    """longer side of the thumbnails in pixels; 0: none. Data sets that may not be passed on get none"""
    choose_k: Rule = "silhouette"
    """how the number of subclasses of a class is chosen"""
    max_k: int = 12
    """most subclasses of one class"""
    min_pictures: int = 1
    """gallery pictures that every subclass gets"""
    data_root: str | None = None
    """folder that holds the data set"""
    batch_size: int = 64
    """pictures in one forward pass of one process"""
    workers: int = 2
    """processes that load pictures"""
    device: Literal["auto", "cpu"] = "auto"
    """auto: the accelerators that Accelerate finds, else the processor"""
    threads: int | None = None
    """processor threads of each process"""


def encode_split(
    accelerator: Accelerator,
    network: Network,
    catalogue: Catalogue,
    name: str,
    preprocessing: Preprocessing,
    options: CheckpointOptions,
    *,
    labels: str,
    strict: bool = False,
) -> Outputs | None:
    """Outputs of one split of a data set as the network sees it, or None where the data set has no such split."""
    if not len(catalogue.rows(name)):
        return None
    split = ImageSplit(catalogue, name, labels=labels, transform=eval_transform(preprocessing), strict=strict)
    # What the gallery is compared with later comes in full precision, whatever the training's was.
    return run_split(
        accelerator, network, split, batch_size=options.batch_size, workers=options.workers, full_precision=True
    )


def at_most_per_class(outputs: Outputs, per_class: int, seed: int) -> Outputs:
    """A seeded choice of at most `per_class` pictures of each label, in their order; all of them for 0."""
    if not per_class:
        return outputs
    labels = outputs.labels.numpy()
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = torch.from_numpy(np.sort(by_class[rank < per_class]))
    return Outputs(outputs.index[rows], outputs.labels[rows], outputs.logits[rows], outputs.embeddings[rows])


def undivided_gallery(catalogue: Catalogue, references: Outputs, options: CheckpointOptions) -> Gallery:
    """Reference pictures of the training split, without subclasses."""
    index = references.index.numpy()
    thumbnails = None
    if options.thumbnails and catalogue.publishable:
        thumbnails = [encode_thumbnail(catalogue.reader(int(i)), options.thumbnails) for i in index]
    return Gallery.build(
        references.embeddings,
        class_id=references.labels.numpy(),
        split=np.full(len(index), TRAIN),
        keys=[str(key) for key in catalogue.keys[index]],
        thumbnails=thumbnails,
        subclass_id=np.full(len(index), -1),
        subclasses={},
    )


def divide_anew(gallery: Gallery, options: CheckpointOptions, *, seed: int, k: int | None = None) -> Gallery:
    """Each class divided into k subclasses, or as many as the data say."""
    return recluster(
        gallery,
        k=k,
        criterion=options.choose_k,
        max_k=options.max_k,
        at_least=options.min_pictures,
        seed=seed,
    ).gallery


def metric_rows(by_split: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """`fgdemo.metrics` of config.json from the figures of `classification_metrics` by split."""
    return [
        {"split": split, "name": name, "value": figures[name], "n": figures["n"]}
        for split, figures in by_split.items()
        for name in FIGURES
    ]


def data_facts(catalogue: Catalogue, level: str, seed: int) -> dict[str, Any]:
    """What `fgdemo.training` says about the data set under every method."""
    return {
        "dataset": catalogue.name,
        "labels": level,
        "seed": seed,
        "samples": len(catalogue.rows("train")),
        "source": catalogue.source,
        "licence": catalogue.licence,
    }
